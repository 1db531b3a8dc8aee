package gogit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// handshakeTimeout is how long it may take until a host has let us in.
const handshakeTimeout = 30 * time.Second

// sshTransport speaks Git over ssh. go-git's own has no bound for a host that is silent, reads the user's
// ~/.ssh/config, and falls back to an agent; this one knows what it is told, and no more.
type sshTransport struct {
	address string
	config  *ssh.ClientConfig
}

func newSSH(dir string, endpoint *transport.Endpoint, auth *Auth) (*sshTransport, error) {
	if auth == nil {
		return nil, (&Auth{}).check("ssh")
	}
	signer, err := auth.signer()
	if err != nil {
		return nil, err
	}
	t := &sshTransport{address: net.JoinHostPort(endpoint.Host, strconv.Itoa(endpoint.Port))}
	callback, err := hostKeys(dir, auth.KnownHosts)
	if err != nil {
		return nil, err
	}
	algorithms, err := knownAlgorithms(callback, t.address)
	if err != nil {
		return nil, err
	}
	t.config = &ssh.ClientConfig{
		User: endpoint.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: callback, HostKeyAlgorithms: algorithms,
	}
	return t, nil
}

// hostKeys writes known_hosts where its reader wants them: in a file.
func hostKeys(dir string, content []byte) (ssh.HostKeyCallback, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("git store: %w", err)
	}
	name := filepath.Join(dir, "known_hosts")
	if err := replaceFile(name, string(content)); err != nil {
		return nil, err
	}
	callback, err := knownhosts.New(name)
	if err != nil {
		return nil, fmt.Errorf("known_hosts cannot be read: %s", strings.TrimPrefix(err.Error(), "knownhosts: "+name))
	}
	return callback, nil
}

// knownAlgorithms returns how a host may prove one of its known keys, so that it does not choose another of
// its keys. knownhosts tells the keys only to those who come with a wrong one.
func knownAlgorithms(callback ssh.HostKeyCallback, address string) ([]string, error) {
	var known *knownhosts.KeyError
	if err := callback(address, &net.TCPAddr{IP: net.IPv4zero}, wrongKey{}); !errors.As(err, &known) || len(known.Want) == 0 {
		return nil, fmt.Errorf("known_hosts has no key of %s; add it (ssh-keyscan, checked against what the host publishes)", knownhosts.Normalize(address))
	}
	var algorithms []string
	for _, key := range known.Want {
		if key.Key.Type() == ssh.KeyAlgoRSA {
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		algorithms = append(algorithms, key.Key.Type())
	}
	return algorithms, nil
}

// wrongKey is no host's.
type wrongKey struct{}

func (wrongKey) Type() string                        { return "none" }
func (wrongKey) Marshal() []byte                     { return []byte("none") }
func (wrongKey) Verify([]byte, *ssh.Signature) error { return errors.New("it is no key") }

// NewUploadPackSession begins nothing yet: it is the first call that has a context.
func (t *sshTransport) NewUploadPackSession(endpoint *transport.Endpoint, _ transport.AuthMethod) (transport.UploadPackSession, error) {
	return &sshSession{transport: t, service: transport.UploadPackServiceName, path: endpoint.Path}, nil
}

// NewReceivePackSession begins nothing yet.
func (t *sshTransport) NewReceivePackSession(endpoint *transport.Endpoint, _ transport.AuthMethod) (transport.ReceivePackSession, error) {
	return &sshSession{transport: t, service: transport.ReceivePackServiceName, path: endpoint.Path}, nil
}

// connect returns a connection that has been let in.
func (t *sshTransport) connect(ctx context.Context) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	inner, channels, requests, err := ssh.NewClientConn(conn, t.address, t.config)
	if !stop() && err == nil {
		err = errors.Join(ctx.Err(), inner.Close())
	}
	if err != nil {
		return nil, errors.Join(denied(err), ignoreClosed(conn.Close()))
	}
	return ssh.NewClient(inner, channels, requests), nil
}

// sshError is an answer of the host, or one to it, that trying again does not change.
type sshError struct{ text string }

func (e *sshError) Error() string { return e.text }

// denied says why a host did not let us in, or we not it.
func denied(err error) error {
	var key *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &key):
		return &sshError{"the host shows a key that known_hosts does not have for it; somebody may be answering in its place, or it has a new key: compare with what the host publishes"}
	case errors.As(err, &revoked):
		return &sshError{"the host shows a key that known_hosts has as revoked"}
	case strings.Contains(err.Error(), "unable to authenticate"): // x/crypto has no type for it
		return &sshError{"the Git host does not know this identity; give its public key the access"}
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// sshSession is one git-upload-pack or git-receive-pack on the host.
type sshSession struct {
	transport     *sshTransport
	service, path string

	client     *ssh.Client
	session    *ssh.Session
	in         io.WriteCloser
	out        io.Reader
	said       lockedRemarks
	advertised *packp.AdvRefs
}

type lockedRemarks struct {
	mu sync.Mutex
	remarks
}

func (r *lockedRemarks) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remarks.Write(p)
}

func (r *lockedRemarks) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remarks.String()
}

func (s *sshSession) start(ctx context.Context) (err error) {
	if s.client, err = s.transport.connect(ctx); err != nil {
		return err
	}
	if s.session, err = s.client.NewSession(); err != nil {
		return err
	}
	s.session.Stderr = &s.said
	if s.in, err = s.session.StdinPipe(); err != nil {
		return err
	}
	if s.out, err = s.session.StdoutPipe(); err != nil {
		return err
	}
	return s.session.Start(s.service + " " + quoted(s.path))
}

// quoted is one word for a shell (quote.c, sq_quote_buf).
func quoted(word string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(word) + "'"
}

// until ends the session with the context. What it returns ends that.
func (s *sshSession) until(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = s.client.Close() })
}

// AdvertisedReferences is there for go-git's interface.
func (s *sshSession) AdvertisedReferences() (*packp.AdvRefs, error) {
	return s.AdvertisedReferencesContext(context.Background())
}

// AdvertisedReferencesContext begins the session and returns the refs of the host.
func (s *sshSession) AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error) {
	if s.advertised != nil {
		return s.advertised, nil
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	defer s.until(ctx)()
	advertised := packp.NewAdvRefs()
	err := advertised.Decode(s.out)
	reading := s.service == transport.UploadPackServiceName
	switch {
	case errors.Is(err, packp.ErrEmptyAdvRefs) && !reading:
	case errors.Is(err, packp.ErrEmptyAdvRefs), err == nil && reading && advertised.IsEmpty():
		return nil, transport.ErrEmptyRemoteRepository
	case errors.Is(err, packp.ErrEmptyInput):
		return nil, s.nothing()
	case err != nil:
		return nil, err
	}
	transport.FilterUnsupportedCapabilities(advertised.Capabilities)
	s.advertised = advertised
	return advertised, nil
}

// nothing says why the host ended the session without a word of Git.
func (s *sshSession) nothing() error {
	_ = s.session.Wait() // then all of its remarks are here
	said := s.said.String()
	lower := strings.ToLower(said)
	for _, words := range []string{"not found", "does not appear to be a git repository", "does not exist", "no such repository", "could not be found"} {
		if strings.Contains(lower, words) {
			return transport.ErrRepositoryNotFound
		}
	}
	if said == "" {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the host says: %s", said)
}

// UploadPack asks for objects. Reading and closing what it returns ends the session.
func (s *sshSession) UploadPack(ctx context.Context, request *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if request.IsEmpty() {
		return nil, transport.ErrEmptyUploadPackRequest
	}
	if err := request.Validate(); err != nil {
		return nil, err
	}
	stop := s.until(ctx)
	answer := packp.NewUploadPackResponse(request)
	err := errors.Join(request.UploadRequest.Encode(s.in), request.UploadHaves.Encode(s.in, true))
	if err == nil {
		err = errors.Join(pktline.NewEncoder(s.in).EncodeString("done\n"), s.in.Close())
	}
	if err == nil {
		err = answer.Decode(ending{s.out, func() error { stop(); return nil }})
	}
	if err != nil {
		stop()
		if said := s.said.String(); said != "" {
			err = fmt.Errorf("%w (the host says: %s)", err, said)
		}
		return nil, err
	}
	return answer, nil
}

type ending struct {
	io.Reader
	end func() error
}

func (e ending) Close() error { return e.end() }

// ReceivePack sends objects and moves refs.
func (s *sshSession) ReceivePack(ctx context.Context, request *packp.ReferenceUpdateRequest) (*packp.ReportStatus, error) {
	defer s.until(ctx)()
	if err := request.Encode(s.in); err != nil {
		return nil, err
	}
	if err := s.in.Close(); err != nil {
		return nil, err
	}
	out := s.out
	if request.Capabilities.Supports(capability.Sideband64k) {
		demuxer := sideband.NewDemuxer(sideband.Sideband64k, out)
		demuxer.Progress = request.Progress
		out = demuxer
	}
	report := packp.NewReportStatus()
	if err := report.Decode(out); err != nil {
		return nil, err
	}
	return report, report.Error()
}

// Close ends the connection and waits for what reads from it.
func (s *sshSession) Close() error {
	if s.client == nil {
		return nil
	}
	_ = s.client.Close() // a session that is over may be closed already
	_ = s.client.Wait()
	return nil
}
