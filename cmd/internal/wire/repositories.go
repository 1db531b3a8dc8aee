package wire

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"sync"

	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/reconciler"
)

// repositories opens one store per URL and credentials, and keeps it open.
type repositories struct {
	dir string

	mu   sync.Mutex
	open map[string]*gogit.Store
}

func newRepositories(dir string) *repositories {
	return &repositories{dir: dir, open: map[string]*gogit.Store{}}
}

// Open returns the store of url. Other credentials make another client of the same folder's content.
func (r *repositories) Open(ctx context.Context, url string, credentials reconciler.Credentials) (reconciler.Repository, error) {
	sum := sha256.Sum256([]byte(url + "\x00" + credentials.Username + "\x00" + credentials.Password.Reveal()))
	key := hex.EncodeToString(sum[:8])
	r.mu.Lock()
	defer r.mu.Unlock()
	if store, found := r.open[key]; found {
		return store, nil
	}
	options := gogit.Options{Dir: filepath.Join(r.dir, key), URL: url}
	if credentials.Username != "" || !credentials.Password.Empty() {
		options.Auth = &gogit.Auth{Username: credentials.Username, Password: credentials.Password}
	}
	store, err := gogit.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	r.open[key] = store
	return store, nil
}
