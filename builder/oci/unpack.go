package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// unpackImage writes the layers of an image over each other into the empty folder dir, and returns how many bytes.
func unpackImage(ctx context.Context, image v1.Image, dir string, limits Limits) (int64, error) {
	config, err := configOf(image)
	if err != nil {
		return 0, err
	}
	layers, err := image.Layers()
	if err != nil {
		return 0, err
	}
	if len(layers) != len(config.RootFS.DiffIDs) {
		return 0, fmt.Errorf("it has %d layers, and its config names %d", len(layers), len(config.RootFS.DiffIDs))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	u := &unpacker{root: root, bytes: limits.Unpacked, entries: limits.Entries, folders: map[string]*tar.Header{}}
	for i, layer := range layers {
		if err := u.layer(ctx, layer, config.RootFS.DiffIDs[i]); err != nil {
			return 0, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return limits.Unpacked - u.bytes, u.finish()
}

// unpacker writes below root. Every name is resolved as a process would that has root as its root; os.Root holds even
// if that went wrong.
type unpacker struct {
	root    *os.Root
	bytes   int64                  // that may still be written
	entries int                    // that may still be made
	folders map[string]*tar.Header // whose mode and time are set last, when nothing more is written into them
	made    map[string]bool        // what this layer has written, with the folders above
}

// layer checks the content against its digest, which the config names, only at its end; so nothing counts before.
func (u *unpacker) layer(ctx context.Context, layer v1.Layer, want v1.Hash) error {
	content, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer content.Close()
	sum := sha256.New()
	reader := io.TeeReader(&during{ctx: ctx, next: content}, sum)
	u.made = map[string]bool{}
	for files := tar.NewReader(reader); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := u.entry(header, files); err != nil {
			return fmt.Errorf("%q: %w", shortened(header.Name), err)
		}
	}
	// What follows the end of the archive belongs to the digest, and is bounded like the rest.
	rest, err := io.Copy(io.Discard, io.LimitReader(reader, u.bytes+1))
	if err != nil {
		return err
	}
	if rest > u.bytes {
		return u.tooLarge()
	}
	if have := hex.EncodeToString(sum.Sum(nil)); want.Algorithm != "sha256" || have != want.Hex {
		return fmt.Errorf("content has digest sha256:%s, and the config says %s", have, want)
	}
	return nil
}

func shortened(name string) string {
	if len(name) > 200 {
		return name[:200] + "..."
	}
	return name
}

func (u *unpacker) tooLarge() error {
	return errors.New("the image is larger than allowed (see Limits.Unpacked)")
}

const whiteout = ".wh."

func (u *unpacker) entry(header *tar.Header, content io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader { // git archive writes such
		return nil
	}
	if u.entries--; u.entries < 0 {
		return errors.New("the image has more files than allowed (see Limits.Entries)")
	}
	name := path.Clean(strings.TrimLeft(header.Name, "/"))
	if name == ".." || strings.HasPrefix(name, "../") || strings.ContainsRune(name, 0) {
		return errors.New("name leads out of the image")
	}
	if name == "." {
		return nil
	}
	parent, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if strings.HasPrefix(base, whiteout) {
		return u.white(parent, base)
	}
	name = path.Join(parent, base)
	if err := u.clear(name, header.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		err = u.folder(name, header)
	case tar.TypeReg, tar.TypeGNUSparse:
		err = u.file(name, header, content)
	case tar.TypeSymlink:
		err = u.root.Symlink(header.Linkname, name)
	case tar.TypeLink:
		err = u.hardLink(name, header)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil
	default:
		return fmt.Errorf("unknown kind of entry %q", header.Typeflag)
	}
	u.note(name)
	return err
}

// note remembers that this layer wrote name, so that its own whiteouts do not hide it.
func (u *unpacker) note(name string) {
	for ; name != "." && !u.made[name]; name = path.Dir(name) {
		u.made[name] = true
	}
}

// clear removes what is in the way. Only a folder on a folder is none.
func (u *unpacker) clear(name string, folder bool) error {
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if folder && info.IsDir() {
		return nil
	}
	return u.root.RemoveAll(name)
}

func (u *unpacker) folder(name string, header *tar.Header) error {
	if err := u.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	u.folders[name] = header
	return nil
}

func (u *unpacker) file(name string, header *tar.Header, content io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	written, err := io.Copy(f, io.LimitReader(content, u.bytes+1))
	if err == nil && written > u.bytes {
		err = u.tooLarge()
	}
	u.bytes -= written
	if err == nil {
		err = f.Chmod(mode(header) | 0o400)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = u.root.Chtimes(name, header.ModTime, header.ModTime)
	}
	return err
}

// mode keeps what does not give anybody rights: the permissions, and for folders that only owners remove.
func mode(header *tar.Header) fs.FileMode {
	m := fs.FileMode(header.Mode).Perm() //nolint:gosec // only nine bits are taken
	if header.Typeflag == tar.TypeDir && header.Mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

func (u *unpacker) hardLink(name string, header *tar.Header) error {
	target := path.Clean(strings.TrimLeft(header.Linkname, "/"))
	if target == "." || target == ".." || strings.HasPrefix(target, "../") {
		return fmt.Errorf("link to %q leads out of the image", shortened(header.Linkname))
	}
	parent, err := u.parent(path.Dir(target))
	if err != nil {
		return err
	}
	target = path.Join(parent, path.Base(target))
	info, err := u.root.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link to %q, which is not there", shortened(header.Linkname))
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("link to %q, a folder", shortened(header.Linkname))
	}
	return u.root.Link(target, name)
}

// white hides what lower layers have, and nothing of this one, in whatever order the entries come.
func (u *unpacker) white(parent, base string) error {
	switch hidden := strings.TrimPrefix(base, whiteout); {
	case hidden == ".wh..opq":
		return u.hideBelow(parent)
	case strings.HasPrefix(hidden, whiteout): // bookkeeping of aufs
		return nil
	case hidden == "" || hidden == "." || hidden == "..":
		return errors.New("whiteout of nothing")
	default:
		return u.hide(path.Join(parent, hidden))
	}
}

func (u *unpacker) hide(name string) error {
	if !u.made[name] {
		return u.root.RemoveAll(name)
	}
	if info, err := u.root.Lstat(name); err != nil || !info.IsDir() {
		return err
	}
	return u.hideBelow(name)
}

func (u *unpacker) hideBelow(folder string) error {
	f, err := u.root.Open(folder)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if closed := f.Close(); err == nil {
		err = closed
	}
	for _, n := range names {
		if err == nil {
			err = u.hide(path.Join(folder, n))
		}
	}
	return err
}

const maxLinks = 64 // that are followed for one name

// parent resolves the folder of an entry as a process in the image would, and makes what is missing of it: absolute
// links begin at the root of the image, and .. does not lead above it. What it returns has no links in it.
func (u *unpacker) parent(folder string) (string, error) {
	done, left, links := ".", strings.Split(folder, "/"), 0
	for len(left) > 0 {
		part := left[0]
		left = left[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		info, err := u.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if u.entries--; u.entries < 0 {
				return "", errors.New("the image has more files than allowed (see Limits.Entries)")
			}
			if err := u.folder(next, &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				return "", err
			}
			u.note(next)
			done = next
		case err != nil:
			return "", err
		case info.IsDir():
			done = next
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", errors.New("links that lead in a circle")
			}
			target, err := u.root.Readlink(next)
			if err != nil {
				return "", err
			}
			if path.IsAbs(target) {
				done = "."
			}
			left = append(strings.Split(target, "/"), left...)
		default:
			return "", fmt.Errorf("%q is not a folder", shortened(next))
		}
	}
	return done, nil
}

// finish gives folders their modes and times. The owner may always enter and write, else nobody but root could remove them.
func (u *unpacker) finish() error {
	return fs.WalkDir(u.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		header := u.folders[name] // the newest, since what is a folder now was made after what it replaced
		if err != nil || !d.IsDir() || header == nil {
			return err
		}
		if err := u.root.Chmod(name, mode(header)|0o700); err != nil || header.ModTime.IsZero() {
			return err
		}
		return u.root.Chtimes(name, header.ModTime, header.ModTime)
	})
}

// during ends reading with its context.
type during struct {
	ctx  context.Context //nolint:containedctx // lives as long as one read of a layer
	next io.Reader
}

func (d *during) Read(p []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	return d.next.Read(p)
}
