package oci

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
)

// unpacking is one archive on its way into the store: its blobs lie in a folder of their own until it is known to be good.
type unpacking struct {
	limits  Limits
	dir     string
	root    *node
	entries int
}

// unpack reads a tar archive to its end, gzipped or not. What is wrong with the archive is a *ContentError without a
// Subject; other errors come from the reader or the disk.
func unpack(archive io.Reader, gzipped bool, dir string, limits Limits) (*node, error) {
	from := &source{next: archive}
	u := &unpacking{limits: limits, dir: dir, root: &node{kind: gitsource.Directory, children: map[string]*node{}}}
	stream := io.Reader(from)
	if gzipped {
		unzipped, err := gzip.NewReader(from)
		if err != nil {
			return nil, from.or(&ContentError{Cause: fmt.Errorf("not gzipped: %w", err)})
		}
		stream = unzipped
	}
	bounded := &capped{next: stream, left: limits.Unpacked, what: fmt.Sprintf("more than %d bytes unpacked", limits.Unpacked)}
	if err := u.read(tar.NewReader(bounded)); err != nil {
		return nil, from.or(err)
	}
	// What follows the archive counts, too: only at the end is it known whether the digest is right.
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return nil, from.or(&ContentError{Cause: err})
	}
	if _, err := io.Copy(io.Discard, from); err != nil {
		return nil, err
	}
	if u.entries == 0 {
		return nil, &ContentError{Cause: errors.New("the archive is empty")}
	}
	u.root.seal()
	return u.root, nil
}

func (u *unpacking) read(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &ContentError{Cause: fmt.Errorf("not a tar archive: %w", err)}
		}
		if header.Typeflag == tar.TypeXGlobalHeader { // git archive writes one; it holds no file
			continue
		}
		if err := u.add(header, archive); err != nil {
			return err
		}
	}
}

// add takes one entry of the archive in.
func (u *unpacking) add(header *tar.Header, content io.Reader) error {
	refuse := func(format string, args ...any) error {
		return &ContentError{Path: brief(header.Name), Cause: fmt.Errorf(format, args...)}
	}
	clean, err := entryName(header.Name)
	if err != nil {
		return refuse("%w", err)
	}
	if u.entries++; u.entries > u.limits.Entries {
		return refuse("more than %d entries: %w", u.limits.Entries, ErrLimit)
	}
	if clean == "." {
		if header.Typeflag != tar.TypeDir {
			return refuse("the root is not a folder")
		}
		return nil
	}
	if strings.Count(clean, "/") >= u.limits.Depth {
		return refuse("more than %d folders deep: %w", u.limits.Depth, ErrLimit)
	}
	parent, err := u.folder(path.Dir(clean))
	if err != nil {
		return refuse("%w", err)
	}
	name := path.Base(clean)
	if there, found := parent.children[name]; found {
		if header.Typeflag == tar.TypeDir && there.kind == gitsource.Directory {
			return nil
		}
		return refuse("is in the archive twice")
	}
	made := &node{name: name}
	switch header.Typeflag {
	case tar.TypeDir:
		made.kind, made.children = gitsource.Directory, map[string]*node{}
	case tar.TypeReg:
		made.kind = gitsource.File
		if header.Mode&0o111 != 0 {
			made.kind = gitsource.Executable
		}
		made.size = header.Size
		if made.id, err = u.keep(content, header.Size); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if header.Linkname == "" || len(header.Linkname) > longestTarget {
			return refuse("symbolic link without a usable target")
		}
		made.kind, made.target = gitsource.Symlink, header.Linkname
		made.size, made.id = int64(len(header.Linkname)), blobID([]byte(header.Linkname))
	case tar.TypeLink:
		return refuse("hard link (only files, folders and symbolic links are unpacked)")
	default:
		return refuse("entry of type %q: a device, a pipe or a sparse file (only files, folders and symbolic links are unpacked)", header.Typeflag)
	}
	parent.children[name] = made
	return nil
}

// folder returns the folder at name and makes those that the archive does not list.
func (u *unpacking) folder(name string) (*node, error) {
	at := u.root
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		next, found := at.children[part]
		if !found {
			if u.entries++; u.entries > u.limits.Entries {
				return nil, fmt.Errorf("more than %d entries: %w", u.limits.Entries, ErrLimit)
			}
			next = &node{name: part, kind: gitsource.Directory, children: map[string]*node{}}
			at.children[part] = next
		}
		if next.kind != gitsource.Directory {
			return nil, fmt.Errorf("is below %s, which is no folder", part)
		}
		at = next
	}
	return at, nil
}

// keep writes one file to the staging folder under its id.
func (u *unpacking) keep(content io.Reader, size int64) (gitsource.ObjectID, error) {
	file, err := os.CreateTemp(u.dir, "file-") // mode 0600
	if err != nil {
		return "", err
	}
	h := newBlobHash(size)
	read := &marked{next: content}
	_, err = io.Copy(io.MultiWriter(file, h), read)
	if closed := file.Close(); read.err == nil {
		err = errors.Join(err, closed)
	}
	if read.err != nil {
		return "", &ContentError{Cause: fmt.Errorf("not a whole tar archive: %w", read.err)}
	}
	if err != nil {
		return "", err
	}
	id := idOf(h)
	return id, os.Rename(file.Name(), filepath.Join(u.dir, string(id)))
}

// entryName checks the name of an entry: relative, and nowhere above the root.
func entryName(name string) (string, error) {
	switch {
	case name == "" || len(name) > longestTarget:
		return "", errors.New("no usable name")
	case strings.HasPrefix(name, "/"):
		return "", errors.New("absolute path")
	case strings.ContainsAny(name, "\x00\\"):
		return "", errors.New("NUL or backslash in a name")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New("path that leaves the archive")
		}
	}
	clean := path.Clean(name)
	if !fs.ValidPath(clean) {
		return "", errors.New("name that is not UTF-8")
	}
	return clean, nil
}

// brief keeps a hostile name from filling a message.
func brief(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// capped ends in ErrLimit where there is more than left.
type capped struct {
	next io.Reader
	left int64
	what string
}

func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.next.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, fmt.Errorf("%s: %w", c.what, ErrLimit)
	}
	return n, err
}

// source remembers that the archive could not be read on, which says nothing about its content.
type source struct {
	next io.Reader
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.next.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// or returns the error of reading where there was one, else err.
func (s *source) or(err error) error {
	if s.err != nil {
		return s.err
	}
	return err
}

// marked tells errors of reading from those of writing.
type marked struct {
	next io.Reader
	err  error
}

func (m *marked) Read(p []byte) (int, error) {
	n, err := m.next.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}

// chartRoot returns the only folder of a Helm chart's archive, whose name is the chart's: the tree begins there.
func chartRoot(root *node) (*node, error) {
	for _, child := range root.children {
		if len(root.children) == 1 && child.kind == gitsource.Directory {
			return child, nil
		}
	}
	return nil, &ContentError{Cause: errors.New("not a Helm chart (want one folder that holds everything)")}
}
