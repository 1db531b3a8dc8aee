package oci

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Where the caches are inside the sandbox.
const (
	ModuleCache = "/cache/go-mod"   // GOMODCACHE
	BuildCache  = "/cache/go-build" // GOCACHE
)

// Mount is a folder of the machine that commands in the sandbox see.
type Mount struct {
	Source, Target string
	Writable       bool
}

// Caches returns the caches of Go that builds of one trust level share, and makes them if need be. trust is any text that
// says who may write: "shop/main", "shop/pull-requests". Two texts never share a folder.
//
// Whatever runs in a sandbox may write the caches of its level. That means that it can put wrong contents there under
// the name of a module or a compiled package, which later builds of the same level use unchecked (go.sum is checked when
// a module is downloaded, not when it is used). So a level has to be as narrow as what may decide what the other builds
// of the level produce; those of other levels never read it.
func (r *Registry) Caches(trust string) ([]Mount, error) {
	if trust == "" {
		return nil, errors.New("caches: no trust level, so that it is unknown who may read what is written")
	}
	partition := r.partition(trust)
	mounts := []Mount{
		{Source: filepath.Join(partition, "mod"), Target: ModuleCache, Writable: true},
		{Source: filepath.Join(partition, "build"), Target: BuildCache, Writable: true},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.Source, 0o700); err != nil {
			return nil, fmt.Errorf("caches of %s: %w", trust, err)
		}
	}
	now := r.now()
	if err := os.Chtimes(partition, now, now); err != nil { // Trim begins with those that nobody used for long
		return nil, fmt.Errorf("caches of %s: %w", trust, err)
	}
	return mounts, nil
}

// partition names a folder by a hash, since a trust level may hold any letter.
func (r *Registry) partition(trust string) string {
	sum := sha256.Sum256([]byte(trust))
	return filepath.Join(r.cachesDir(), hex.EncodeToString(sum[:12]))
}

// Trim removes caches of builds until they hold at most limit bytes, those that were asked for longest ago first, each
// level's as a whole. It returns how many bytes are left. No sandbox may have them mounted meanwhile: a worker calls
// it between jobs.
func (r *Registry) Trim(ctx context.Context, limit int64) (int64, error) {
	partitions, total, err := r.measure(ctx)
	if err != nil {
		return 0, fmt.Errorf("caches of builds: %w", err)
	}
	for _, p := range partitions {
		if total <= limit {
			break
		}
		if err := r.remove(p.dir); err != nil {
			return total, fmt.Errorf("caches of builds: %w", err)
		}
		total -= p.size
		r.log.InfoContext(ctx, "removed caches of builds", "folder", p.dir, "bytes", p.size, "used", p.used)
	}
	return total, nil
}

type partition struct {
	dir  string
	size int64
	used time.Time
}

// measure lists the partitions, that which was used longest ago first.
func (r *Registry) measure(ctx context.Context) (partitions []partition, total int64, err error) {
	entries, err := os.ReadDir(r.cachesDir())
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, 0, err
		}
		p := partition{dir: filepath.Join(r.cachesDir(), e.Name()), used: info.ModTime()}
		if p.size, err = size(ctx, p.dir); err != nil {
			return nil, 0, err
		}
		total += p.size
		partitions = append(partitions, p)
	}
	slices.SortFunc(partitions, func(a, b partition) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.dir, b.dir))
	})
	return partitions, total, nil
}

// size adds up the files below dir, without following links.
func size(ctx context.Context, dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info, err := d.Info(); err == nil && d.Type().IsRegular() {
			total += info.Size()
		}
		return ctx.Err()
	})
	return total, err
}

// remove removes a folder, which first gets another name so that nobody finds half of it.
func (r *Registry) remove(dir string) error {
	doomed, err := os.MkdirTemp(r.scratchDir(), "removed-")
	if err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(doomed, "content")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removeAll(doomed)
}

// removeAll also removes what stands in folders that may not be written, as those of the module cache.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	root, err := os.OpenRoot(dir) // so that a link which somebody puts there meanwhile is not followed out of it
	if err != nil {
		return err
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = root.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
