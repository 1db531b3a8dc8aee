package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-cd/slipway/policy"
)

// Login is what a registry is asked with.
type Login struct {
	Username string
	Password policy.Secret
}

// Options configure a Registry.
type Options struct {
	// Cache is a folder for unpacked images and the caches of builds; made if need be. Several processes may share it.
	Cache string
	// Logins are by host, HOST[:PORT]; docker.io for Docker Hub.
	Logins map[string]Login
	// Insecure are the hosts that may be spoken to without TLS, besides those of loopback.
	Insecure []string
	// Certificates is a PEM bundle that images without a base get as /etc/ssl/certs/ca-certificates.crt; nil for none.
	Certificates []byte
	// Toolchain says how Go is called in the sandbox.
	Toolchain Toolchain
	// Limits bound the images that are unpacked, and what is kept of them.
	Limits Limits
	// Transport carries the requests; default one with timeouts. It sees credentials.
	Transport http.RoundTripper
	Log       *slog.Logger // default none
}

// Toolchain says how Go is called in the sandbox.
type Toolchain struct {
	Path      string // of the commands, colon separated; default that of the golang images and of Linux
	Proxy     string // GOPROXY; default https://proxy.golang.org; nothing is ever fetched by version control
	NoSumDB   string // GONOSUMDB, module patterns, comma separated
	SumDB     string // GOSUMDB; default sum.golang.org
	Processes int    // that go build runs at a time; 0 for one per CPU that the sandbox gives
}

// Limits bound the images that are unpacked, and what is kept of them.
type Limits struct {
	Unpacked int64         // bytes of one image; default 8 GiB
	Entries  int           // files, folders and links of one image; default 500,000
	Kept     int64         // bytes of all unpacked images before unused ones are removed; default 32 GiB
	Unused   time.Duration // since an image was last asked for, before it may be removed; default 24 h. Longer than any stage runs.
}

// Registry makes, pushes and unpacks images. It may be used from many goroutines.
type Registry struct {
	cache        string
	logins       map[string]Login
	insecure     []string
	certificates []byte
	toolchain    Toolchain
	limits       Limits
	client       http.RoundTripper
	log          *slog.Logger
	now          func() time.Time

	mu        sync.Mutex
	unpacking map[string]chan struct{} // by key of the image, closed at the end
}

// New checks the options and makes the cache folder. It asks no registry.
func New(o Options) (*Registry, error) {
	if o.Cache == "" {
		return nil, errors.New("images: no cache folder (set Options.Cache)")
	}
	cache, err := filepath.Abs(o.Cache)
	if err != nil {
		return nil, fmt.Errorf("images: cache folder %s: %w", o.Cache, err)
	}
	r := &Registry{
		cache: cache, logins: map[string]Login{}, insecure: o.Insecure, certificates: o.Certificates,
		toolchain: o.Toolchain, limits: o.Limits, client: o.Transport, log: o.Log, now: time.Now, unpacking: map[string]chan struct{}{},
	}
	for host, login := range o.Logins {
		if host == "docker.io" {
			host = name.DefaultRegistry
		}
		if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
			return nil, fmt.Errorf("images: login for %q: not a host (want HOST or HOST:PORT)", host)
		}
		r.logins[host] = login
	}
	r.defaults()
	for _, dir := range []string{r.rootsDir(), r.cachesDir(), r.scratchDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("images: cache: %w", err)
		}
	}
	return r, nil
}

func (r *Registry) defaults() {
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.client == nil {
		client := http.DefaultTransport.(*http.Transport).Clone()
		client.ResponseHeaderTimeout = time.Minute // after the request is sent whole
		r.client = client
	}
	r.client = &encrypted{next: r.client, insecure: r.insecure}
	t := &r.toolchain
	t.Path = valueOr(t.Path, "/usr/local/go/bin:/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	t.Proxy = valueOr(t.Proxy, "https://proxy.golang.org")
	t.SumDB = valueOr(t.SumDB, "sum.golang.org")
	l := &r.limits
	l.Unpacked = valueOr(l.Unpacked, 8<<30)
	l.Entries = valueOr(l.Entries, 500_000)
	l.Kept = valueOr(l.Kept, 32<<30)
	l.Unused = valueOr(l.Unused, 24*time.Hour)
}

// valueOr returns v, or standard if v is zero.
func valueOr[T comparable](v, standard T) T {
	var zero T
	if v == zero {
		return standard
	}
	return v
}

func (r *Registry) rootsDir() string   { return filepath.Join(r.cache, "rootfs") }
func (r *Registry) cachesDir() string  { return filepath.Join(r.cache, "go") }
func (r *Registry) scratchDir() string { return filepath.Join(r.cache, "tmp") }

// Resolve implements authn.Keychain.
func (r *Registry) Resolve(resource authn.Resource) (authn.Authenticator, error) {
	login, known := r.logins[resource.RegistryStr()]
	if !known {
		return authn.Anonymous, nil
	}
	return &authn.Basic{Username: login.Username, Password: login.Password.Reveal()}, nil
}

// remote returns the options of one operation: clients of the library remember failures, so none is kept.
func (r *Registry) remote(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(r), remote.WithTransport(r.client), remote.WithJobs(4), remote.WithUserAgent("slipway"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.2, Steps: 4}), // 2.6 s in all
	}
}

// naming returns how names of the host are to be read.
func (r *Registry) naming(reference string) []name.Option {
	host, _, _ := strings.Cut(reference, "/")
	if slices.Contains(r.insecure, host) {
		return []name.Option{name.Insecure}
	}
	return nil
}

// reference reads the name of an image to pull. Without a tag it is the one that is tagged latest, as everywhere.
func (r *Registry) reference(text string) (name.Reference, error) {
	ref, err := name.ParseReference(text, r.naming(text)...)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w (want HOST/PATH@sha256:... or HOST/PATH:TAG)", text, err)
	}
	return ref, nil
}

// encrypted sends nothing in the clear but to hosts for which that was allowed. The library takes private addresses for
// such hosts, and a registry can redirect to where it likes; both get TLS.
type encrypted struct {
	next     http.RoundTripper
	insecure []string
}

func (e *encrypted) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme == "http" && !slices.Contains(e.insecure, request.URL.Host) && !loopback(request.URL.Hostname()) {
		request = request.Clone(request.Context())
		request.URL.Scheme = "https"
	}
	return e.next.RoundTrip(request)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
