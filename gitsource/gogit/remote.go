package gogit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/file"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/slipway-cd/slipway/gitsource"
)

// How long a host may take to accept a connection, and to begin an answer. What
// takes its time from there on ends with the caller's context.
const (
	dialTimeout   = 10 * time.Second
	answerTimeout = 2 * time.Minute
)

// remote speaks with one repository on its host.
type remote struct {
	url       string
	transport transport.Transport
	endpoint  *transport.Endpoint
	auth      transport.AuthMethod
}

func newRemote(raw string, auth *Auth) (*remote, error) {
	parsed, err := checkURL(raw)
	if err != nil {
		return nil, err
	}
	r := &remote{url: raw}
	switch parsed.Scheme {
	case "http", "https":
		r.transport = githttp.NewClient(&http.Client{Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: answerTimeout,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       90 * time.Second,
		}})
	case "", "file":
		r.transport = file.DefaultClient
	default:
		return nil, fmt.Errorf("git url %s: scheme %s is not supported by this version; use https", raw, parsed.Scheme)
	}
	if r.endpoint, err = transport.NewEndpoint(raw); err != nil {
		return nil, fmt.Errorf("git url %s: %w", raw, err)
	}
	if auth != nil && parsed.Scheme != "" && parsed.Scheme != "file" {
		r.auth = &githttp.BasicAuth{Username: auth.Username, Password: auth.Password.Reveal()}
	}
	return r, nil
}

// list returns the refs of the host, all of them: the protocol that go-git speaks knows no filter.
func (r *remote) list(ctx context.Context) (*packp.AdvRefs, transport.UploadPackSession, error) {
	endpoint := *r.endpoint // a session may change it when it is redirected
	session, err := r.transport.NewUploadPackSession(&endpoint, r.auth)
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

func hashAt(advertised *packp.AdvRefs, ref string) (plumbing.Hash, bool) {
	if peeled, found := advertised.Peeled[ref]; found {
		return peeled, true // an annotated tag: the commit that it names
	}
	hash, found := advertised.References[ref]
	return hash, found
}
