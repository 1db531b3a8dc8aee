package gogit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/file"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/slipway-cd/slipway/gitsource"
)

// How long a host may take to accept a connection, and how long it may be silent
// when an answer is due. What takes its time beyond that ends with the caller's context.
const (
	dialTimeout   = 10 * time.Second
	answerTimeout = 2 * time.Minute
	// listTimeout bounds a listing of refs as a whole: a host that drips must not hold up who waits.
	listTimeout = 30 * time.Second
)

// remote speaks with one repository on its host.
type remote struct {
	url       string
	transport transport.Transport
	endpoint  *transport.Endpoint
	auth      *Auth
}

func newRemote(dir, raw string, auth *Auth, now func() time.Time) (*remote, error) {
	endpoint, err := endpointOf(raw)
	if err != nil {
		return nil, err
	}
	r := &remote{url: raw, endpoint: endpoint, transport: file.DefaultClient, auth: auth}
	if auth != nil {
		if err := auth.check(endpoint.Protocol); err != nil {
			return nil, fmt.Errorf("git url %s: %w", raw, err)
		}
	}
	switch endpoint.Protocol {
	case "file":
	case "ssh":
		if r.transport, err = newSSH(dir, endpoint, auth); err != nil {
			return nil, fmt.Errorf("git url %s: %w", raw, err)
		}
	default:
		config, err := auth.tlsConfig()
		if err != nil {
			return nil, fmt.Errorf("git url %s: %w", raw, err)
		}
		r.transport = githttp.NewClient(&http.Client{Transport: polite{now: now, next: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dial,
			TLSClientConfig:       config,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: answerTimeout,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       90 * time.Second,
		}}})
	}
	return r, nil
}

// endpointOf reads http, https and ssh URLs, file URLs and paths. Credentials in a URL
// are refused: they would end up in messages. A user name is none for ssh, where the key decides.
func endpointOf(raw string) (*transport.Endpoint, error) {
	if raw == "" {
		return nil, errors.New("git url: is empty; want https://HOST/PATH")
	}
	beforeSlash, _, _ := strings.Cut(raw, "/")
	if !strings.Contains(raw, "://") {
		if strings.Contains(beforeSlash, ":") {
			return nil, errors.New("git url: want ssh://USER@HOST/PATH for ssh, or https://HOST/PATH")
		}
		absolute, err := filepath.Abs(raw)
		if err != nil {
			return nil, fmt.Errorf("git url %s: %w", raw, err)
		}
		return &transport.Endpoint{Protocol: "file", Path: absolute}, nil
	}
	parsed, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("git url: it cannot be parsed; want https://HOST/PATH")
	}
	switch {
	case parsed.Scheme == "ssh":
		return sshEndpoint(parsed)
	case parsed.User != nil:
		return nil, fmt.Errorf("git url of host %s: has credentials in it; give them apart (Options.Auth: a Secret, or git's credential helper)", parsed.Host)
	case parsed.RawQuery != "" || parsed.Fragment != "":
		return nil, fmt.Errorf("git url of host %s: has a query or fragment; want https://HOST/PATH", parsed.Host)
	case parsed.Scheme == "file" && parsed.Host != "" && parsed.Host != "localhost":
		return nil, fmt.Errorf("git url %s: names a host; want file:///PATH", raw)
	case parsed.Scheme == "file":
		return &transport.Endpoint{Protocol: "file", Path: parsed.Path}, nil
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return nil, fmt.Errorf("git url %s: %s is not supported by this version; use https", raw, parsed.Scheme)
	case parsed.Host == "":
		return nil, fmt.Errorf("git url %s: has no host; want https://HOST/PATH", raw)
	}
	endpoint, err := transport.NewEndpoint(raw)
	if err != nil {
		return nil, fmt.Errorf("git url %s: %w", raw, err)
	}
	return endpoint, nil
}

// sshEndpoint reads what follows ssh://. No program is started with it, but what would be an option to one
// is refused all the same: who follows the URL by hand, with git, is not to be surprised.
func sshEndpoint(parsed *url.URL) (*transport.Endpoint, error) {
	wrong := func(what string) error {
		return fmt.Errorf("git url of host %q: %s; want ssh://USER@HOST/PATH", parsed.Hostname(), what)
	}
	control := func(c rune) bool { return c < ' ' || c == 0x7f }
	user := parsed.User.Username()
	if _, has := parsed.User.Password(); has {
		return nil, wrong("has a password in it; give an identity apart")
	}
	switch {
	case parsed.Hostname() == "" || strings.HasPrefix(parsed.Hostname(), "-") || strings.ContainsAny(parsed.Hostname(), " %'\"\\`$;|&<>"):
		return nil, wrong("that is no host")
	case user == "" || strings.HasPrefix(user, "-") || strings.ContainsFunc(user, func(c rune) bool { return !strings.ContainsRune(userLetters, c) }):
		return nil, wrong("the user is missing or odd (most hosts want git)")
	case strings.Trim(parsed.Path, "/") == "" || strings.HasPrefix(strings.TrimLeft(parsed.Path, "/"), "-") || strings.ContainsFunc(parsed.Path, control):
		return nil, wrong("the path is missing or odd")
	case parsed.RawQuery != "" || parsed.Fragment != "":
		return nil, wrong("has a query or fragment")
	}
	port := 22
	if given := parsed.Port(); given != "" {
		var err error
		if port, err = strconv.Atoi(given); err != nil || port < 1 || port > 65535 {
			return nil, wrong("the port is none")
		}
	}
	return &transport.Endpoint{Protocol: "ssh", User: user, Host: parsed.Hostname(), Port: port, Path: parsed.Path}, nil
}

const userLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// dial connects. A host that falls silent while it answers is given up on.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return impatient{conn}, nil
}

type impatient struct{ net.Conn }

// Read fails if nothing comes for answerTimeout.
func (c impatient) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// list returns the refs of the host, all of them: the protocol that go-git speaks knows no filter.
func (r *remote) list(ctx context.Context) (*packp.AdvRefs, transport.UploadPackSession, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	endpoint := *r.endpoint // a session may change it when it is redirected
	method, err := r.auth.method(ctx)
	if err != nil {
		return nil, nil, r.explain(ctx, err)
	}
	session, err := r.transport.NewUploadPackSession(&endpoint, method)
	if err != nil {
		return nil, nil, r.explain(ctx, err)
	}
	advertised, err := session.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return packp.NewAdvRefs(), session, nil
	}
	if err != nil {
		return nil, nil, errors.Join(r.explain(ctx, err), session.Close())
	}
	return advertised, session, nil
}

// explain says what an error means for the caller: unknown, or definitely not there.
func (r *remote) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w: %w", r.url, gitsource.ErrUnreachable, ctx.Err())
	case errors.Is(err, transport.ErrAuthenticationRequired):
		return fmt.Errorf("%s: the Git host wants credentials, or does not know those it got; correct the user name and password or token", r.url)
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("%s: the Git host refuses these credentials the access; grant it or use others", r.url)
	case errors.As(err, new(*sshError)):
		return fmt.Errorf("%s: %w", r.url, err)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("%s: repository: %w (or it is hidden from these credentials)", r.url, gitsource.ErrNotFound)
	}
	return fmt.Errorf("%s: %w: %w", r.url, gitsource.ErrUnreachable, err)
}

// Refs lists the refs of the host as they are now, by full name.
func (s *Store) Refs(ctx context.Context) (map[string]gitsource.ObjectID, error) {
	advertised, session, err := s.remote.list(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = session.Close() }()
	return refsOf(advertised), nil
}

func refsOf(advertised *packp.AdvRefs) map[string]gitsource.ObjectID {
	refs := make(map[string]gitsource.ObjectID, len(advertised.References))
	for name, hash := range advertised.References {
		refs[name] = idOf(hash)
	}
	return refs
}

// hashAt returns the commit at a ref and, where that is an annotated tag, the tag.
func hashAt(advertised *packp.AdvRefs, ref string) (commit, tag plumbing.Hash, found bool) {
	hash, found := advertised.References[ref]
	if peeled, annotated := advertised.Peeled[ref]; annotated {
		return peeled, hash, true
	}
	return hash, plumbing.ZeroHash, found
}
