package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"
)

// RootFS returns a folder with the files of the image, and the digest that ref stands for. The folder is shared: nobody
// may change it, and it stays for Limits.Unused at least. An image that is named by digest and was unpacked before is
// not asked for again.
//
// Every byte is checked against the digests. Files belong to whoever unpacks; set-user-id and set-group-id bits, devices, pipes,
// sockets and extended attributes are left out. Links that point out of the folder are kept as they are, for they are
// meant for a process whose root it is; nothing is ever written through them.
func (r *Registry) RootFS(ctx context.Context, ref string) (dir, digest string, err error) {
	parsed, err := r.reference(ref)
	if err != nil {
		return "", "", err
	}
	host := parsed.Context().RegistryStr()
	if d, named := parsed.(name.Digest); named {
		if dir := r.unpacked(d.DigestStr()); dir != "" {
			return dir, d.DigestStr(), nil
		}
	}
	described, err := remote.Get(parsed, r.remote(ctx)...)
	if err != nil {
		return "", "", r.failed("pull", ref, host, err)
	}
	digest = described.Digest.String()
	release, err := r.turn(ctx, digest)
	if err != nil {
		return "", "", r.failed("pull", ref, host, err)
	}
	defer release()
	if dir := r.unpacked(digest); dir != "" {
		return dir, digest, nil
	}
	image, err := forPlatform(described, v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		return "", "", r.failed("pull", ref, host, err)
	}
	dir, err = r.unpack(ctx, image, digest)
	if err != nil {
		return "", "", r.failed("unpack", ref, host, err)
	}
	r.evict(ctx, dir)
	return dir, digest, nil
}

// turn waits until nobody else of this process unpacks the image.
func (r *Registry) turn(ctx context.Context, digest string) (release func(), err error) {
	for {
		r.mu.Lock()
		busy := r.unpacking[digest]
		if busy == nil {
			mine := make(chan struct{})
			r.unpacking[digest] = mine
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.unpacking, digest)
				r.mu.Unlock()
				close(mine)
			}, nil
		}
		r.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// place is where an image is kept: a folder, and a file beside it with its size, whose time is that of the last use.
func (r *Registry) place(digest string) (dir, used string) {
	dir = filepath.Join(r.rootsDir(), strings.ReplaceAll(digest, ":", "-")+"-"+runtime.GOARCH)
	return dir, dir + usedSuffix
}

const usedSuffix = ".used"

// unpacked returns the folder of an image that is there already, and notes that it was used.
func (r *Registry) unpacked(digest string) string {
	r.mu.Lock() // against evict
	defer r.mu.Unlock()
	dir, used := r.place(digest)
	now := r.now()
	if os.Chtimes(used, now, now) != nil {
		return ""
	}
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

// unpack makes the folder beside its place and puts it there whole. Another process may have been faster.
func (r *Registry) unpack(ctx context.Context, image v1.Image, digest string) (string, error) {
	begun := r.now()
	scratch, err := os.MkdirTemp(r.scratchDir(), "unpack-")
	if err != nil {
		return "", err
	}
	defer func() { _ = removeAll(scratch) }()
	content := filepath.Join(scratch, "content")
	if err := os.Mkdir(content, 0o755); err != nil {
		return "", err
	}
	written, err := unpackImage(ctx, image, content, r.limits)
	if err != nil {
		return "", err
	}
	if err := settle(content); err != nil {
		return "", err
	}
	dir, used := r.place(digest)
	if err := os.WriteFile(used, []byte(strconv.FormatInt(written, 10)), 0o600); err != nil {
		return "", err
	}
	if err := os.Chtimes(used, begun, begun); err != nil {
		return "", err
	}
	if err := os.Rename(content, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	r.log.InfoContext(ctx, "unpacked image", "digest", digest, "bytes", written, "took", r.now().Sub(begun))
	return dir, nil
}

// settle has what was written on disk before it gets its name, so that no crash leaves half an image under it.
func settle(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// evict removes images that nobody used for Limits.Unused, those first that were used longest ago, while all together
// are larger than Limits.Kept; and what a process left behind that died while it unpacked. What it cannot remove it says and leaves.
func (r *Registry) evict(ctx context.Context, keep string) {
	limit := r.now().Add(-r.limits.Unused)
	if leftovers, err := os.ReadDir(r.scratchDir()); err == nil {
		for _, e := range leftovers {
			if info, err := e.Info(); err == nil && info.ModTime().Before(limit) {
				_ = removeAll(filepath.Join(r.scratchDir(), e.Name()))
			}
		}
	}
	kept, total := r.kept()
	for _, k := range kept {
		if total <= r.limits.Kept {
			return
		}
		if k.dir == keep || !k.used.Before(limit) {
			continue
		}
		if removed, err := r.forget(k.dir, limit); err != nil || !removed {
			r.log.WarnContext(ctx, "unused image stays", "folder", k.dir, "error", err)
			continue
		}
		total -= k.size
		r.log.InfoContext(ctx, "removed unused image", "folder", k.dir, "bytes", k.size, "used", k.used)
	}
}

// forget removes an image, unless somebody has asked for it since limit.
func (r *Registry) forget(dir string, limit time.Time) (removed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(dir + usedSuffix)
	if err != nil || !info.ModTime().Before(limit) {
		return false, err
	}
	if err := r.remove(dir); err != nil {
		return false, err
	}
	return true, os.Remove(dir + usedSuffix)
}

// kept lists the unpacked images, that which was used longest ago first.
func (r *Registry) kept() (all []partition, total int64) {
	entries, err := os.ReadDir(r.rootsDir())
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		dir, note := strings.CutSuffix(e.Name(), usedSuffix)
		if !note {
			continue
		}
		path := filepath.Join(r.rootsDir(), e.Name())
		text, err := os.ReadFile(path)
		info, err2 := e.Info()
		if err != nil || err2 != nil {
			continue
		}
		bytes, _ := strconv.ParseInt(string(text), 10, 64)
		all = append(all, partition{dir: filepath.Join(r.rootsDir(), dir), size: bytes, used: info.ModTime()})
		total += bytes
	}
	slices.SortFunc(all, func(a, b partition) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.dir, b.dir)) })
	return all, total
}

// forPlatform returns the image itself, or that of the platform if it is an index.
func forPlatform(described *remote.Descriptor, want v1.Platform) (v1.Image, error) {
	if !described.MediaType.IsIndex() {
		if !described.MediaType.IsImage() {
			return nil, fmt.Errorf("media type %s is not that of an image", described.MediaType)
		}
		image, err := described.Image()
		if err != nil {
			return nil, err
		}
		config, err := configOf(image)
		if err != nil {
			return nil, err
		}
		if have := (v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}); !matches(have, want) {
			return nil, fmt.Errorf("it is for %s, not for %s", have, want)
		}
		return image, nil
	}
	index, err := described.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var has []string
	for _, d := range manifest.Manifests {
		if d.Platform == nil || !d.MediaType.IsImage() {
			continue
		}
		if matches(*d.Platform, want) {
			return index.Image(d.Digest)
		}
		has = append(has, d.Platform.String())
	}
	return nil, fmt.Errorf("it has nothing for %s, only for %s", want, strings.Join(has, ", "))
}

// matches takes a variant that one side does not name for the common one.
func matches(have, want v1.Platform) bool {
	return have.OS == want.OS && have.Architecture == want.Architecture && (have.Variant == want.Variant || have.Variant == "" || want.Variant == "")
}

const maxConfig = 8 << 20 // bytes

// configOf reads the config, unless it claims to be absurdly large.
func configOf(image v1.Image) (*v1.ConfigFile, error) {
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	if manifest.Config.Size > maxConfig {
		return nil, fmt.Errorf("its config is larger than %d bytes", maxConfig)
	}
	return image.ConfigFile()
}
