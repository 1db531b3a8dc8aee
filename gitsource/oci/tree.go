package oci

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

const (
	maxLinks = 40
	// longestTarget is PATH_MAX: what is longer leads nowhere.
	longestTarget = 4096
)

var (
	errLoop    = errors.New("more than 40 symbolic links")
	errOutside = errors.New("the symbolic link leaves the tree")
)

// tree is a gitsource.Tree over the blobs of a Store.
type tree struct {
	store *Store
	key   string
	root  *node
	size  int64
}

// node is one file, folder or link.
type node struct {
	name     string // the last part of its path
	kind     gitsource.EntryKind
	id       gitsource.ObjectID
	size     int64
	target   string           // of a link
	children map[string]*node // of a folder
}

// Entry returns what stands at name itself.
func (t *tree) Entry(name string) (gitsource.Entry, error) {
	n, err := t.find(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return gitsource.Entry{}, nil
	}
	if err != nil {
		return gitsource.Entry{}, &fs.PathError{Op: "entry", Path: name, Err: err}
	}
	return gitsource.Entry{Kind: n.kind, ID: n.id, Size: n.size}, nil
}

// ReadLink returns the target of the symbolic link at name.
func (t *tree) ReadLink(name string) (string, error) {
	n, err := t.find(name, false)
	if err == nil && n.kind != gitsource.Symlink {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return n.target, nil
}

// ReadFile returns the content of the file that name leads to.
func (t *tree) ReadFile(name string) ([]byte, error) {
	n, err := t.find(name, true)
	if err == nil && n.kind == gitsource.Directory {
		err = errors.New("is a directory")
	}
	var content []byte
	if err == nil {
		content, err = t.store.blob(t.key, n)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return content, nil
}

// ReadDir lists the directory that name leads to, sorted by name.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find(name, true)
	if err == nil && n.kind != gitsource.Directory {
		err = errors.New("not a directory")
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return n.list(), nil
}

// Open opens the file or directory that name leads to.
func (t *tree) Open(name string) (fs.File, error) {
	n, err := t.find(name, true)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	info := entry{node: n, name: path.Base(name)}
	if n.kind == gitsource.Directory {
		return &directory{entry: info, rest: n.list()}, nil
	}
	content, err := t.store.blob(t.key, n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &openFile{Reader: bytes.NewReader(content), entry: info}, nil
}

// find walks to name. Links on the way are always followed; one at the end only if follow.
func (t *tree) find(name string, follow bool) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrInvalid
	}
	links := 0
	at, dirs := t.root, []*node{}
	todo := strings.Split(name, "/")
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if at.kind != gitsource.Directory {
			return nil, fs.ErrNotExist
		}
		switch part {
		case ".", "":
			continue
		case "..":
			if len(dirs) == 0 {
				return nil, errOutside
			}
			at, dirs = dirs[len(dirs)-1], dirs[:len(dirs)-1]
			continue
		}
		next, found := at.children[part]
		if !found {
			return nil, fs.ErrNotExist
		}
		if next.kind != gitsource.Symlink || (len(todo) == 0 && !follow) {
			dirs = append(dirs, at)
			at = next
			continue
		}
		if links++; links > maxLinks {
			return nil, errLoop
		}
		if strings.HasPrefix(next.target, "/") {
			return nil, errOutside
		}
		todo = append(strings.Split(next.target, "/"), todo...)
	}
	return at, nil
}

func (n *node) list() []fs.DirEntry {
	entries := make([]fs.DirEntry, 0, len(n.children))
	for _, name := range sortedNames(n.children) {
		entries = append(entries, entry{node: n.children[name], name: name})
	}
	return entries
}

// entry is a node as io/fs wants it.
type entry struct {
	node *node
	name string
}

func (e entry) Name() string               { return e.name }
func (e entry) IsDir() bool                { return e.node.kind == gitsource.Directory }
func (e entry) ModTime() time.Time         { return time.Time{} }
func (e entry) Sys() any                   { return nil }
func (e entry) Type() fs.FileMode          { return e.Mode().Type() }
func (e entry) Info() (fs.FileInfo, error) { return e, nil }
func (e entry) Size() int64                { return e.node.size }

func (e entry) Mode() fs.FileMode {
	switch e.node.kind {
	case gitsource.Directory:
		return fs.ModeDir | 0o555
	case gitsource.Executable:
		return 0o555
	case gitsource.Symlink:
		return fs.ModeSymlink | 0o444
	default:
		return 0o444
	}
}

type openFile struct {
	*bytes.Reader
	entry entry
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.entry, nil }
func (f *openFile) Close() error               { return nil }

type directory struct {
	entry entry
	rest  []fs.DirEntry
}

func (d *directory) Stat() (fs.FileInfo, error) { return d.entry, nil }
func (d *directory) Close() error               { return nil }

func (d *directory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.entry.name, Err: errors.New("is a directory")}
}

func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		all := d.rest
		d.rest = nil
		return all, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	some := d.rest[:min(n, len(d.rest))]
	d.rest = d.rest[len(some):]
	return some, nil
}
