package wire

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/gitsource/forge/githubapp"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/reconciler"
)

// repositories opens one store per URL and credentials, and keeps it open.
type repositories struct {
	dir  string
	now  func() time.Time
	sign func(payload []byte) (string, error) // nil for commits that are not signed

	mu   sync.Mutex
	open map[string]*gogit.Store
}

func newRepositories(dir string, now func() time.Time, sign func([]byte) (string, error)) *repositories {
	return &repositories{dir: dir, now: now, sign: sign, open: map[string]*gogit.Store{}}
}

// Open returns the store of url. Other credentials make another store: what one may read, another may not.
func (r *repositories) Open(ctx context.Context, url string, credentials reconciler.Credentials) (reconciler.Repository, error) {
	key := identify(url, credentials)
	r.mu.Lock()
	defer r.mu.Unlock()
	if store, found := r.open[key]; found {
		return store, nil
	}
	auth, err := r.auth(url, credentials)
	if err != nil {
		return nil, err
	}
	store, err := gogit.Open(ctx, gogit.Options{Dir: filepath.Join(r.dir, key), URL: url, Auth: auth, Sign: r.sign, Now: r.now})
	if err != nil {
		return nil, err
	}
	r.open[key] = store
	return store, nil
}

// identify names a URL with its credentials, by a sum from which neither can be told.
func identify(url string, c reconciler.Credentials) string {
	parts := []string{
		url, c.Username, c.Password.Reveal(), c.BearerToken.Reveal(), string(c.Certificate), c.CertificateKey.Reveal(), string(c.CA),
		c.Identity.Reveal(), string(c.PublicKey), string(c.KnownHosts),
	}
	if c.App != nil {
		parts = append(parts, c.App.ID, c.App.Installation, c.App.PrivateKey.Reveal(), c.App.BaseURL)
	}
	var all []byte
	for _, part := range parts {
		all = binary.AppendUvarint(all, uint64(len(part)))
		all = append(all, part...)
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:8])
}

// auth is how a store shows these credentials; nil for anonymous.
func (r *repositories) auth(target string, c reconciler.Credentials) (*gogit.Auth, error) {
	parsed, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("git url: it cannot be parsed")
	}
	auth := &gogit.Auth{
		Username: c.Username, Bearer: c.BearerToken, Certificate: c.Certificate, CertificateKey: c.CertificateKey, CA: c.CA,
		Identity: c.Identity, PublicKey: c.PublicKey, KnownHosts: c.KnownHosts,
	}
	if parsed.Scheme == "ssh" {
		auth.IdentityPassword = c.Password
	} else {
		auth.Password = c.Password
	}
	if c.App == nil {
		return auth, nil
	}
	api := c.App.BaseURL
	if api == "" && parsed.Hostname() != "github.com" {
		api = "https://" + parsed.Host + "/api/v3" // of an Enterprise Server
	}
	installation, err := githubapp.New(githubapp.Options{
		App: c.App.ID, Installation: c.App.Installation, PrivateKey: c.App.PrivateKey, API: api, Now: r.now,
	})
	if err != nil {
		return nil, err
	}
	auth.Tokens = installation
	return auth, nil
}
