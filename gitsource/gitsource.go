// Package gitsource names what a source hands on: a Revision and the Snapshot of its files.
//
// It holds values only. How a repository is reached is the business of the
// packages below it; who uses a Snapshot sees a read-only tree, never a checkout.
package gitsource

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// ObjectID is a Git object name in lower-case hex: 40 characters for SHA-1, 64 for SHA-256.
// The empty ObjectID stands for "no such object".
type ObjectID string

// Short returns the first 12 characters, enough for people, never for comparison.
func (id ObjectID) Short() string {
	if len(id) > 12 {
		return string(id[:12])
	}
	return string(id)
}

// ParseObjectID checks that s is a full Git object name.
func ParseObjectID(s string) (ObjectID, error) {
	s = strings.ToLower(s)
	if len(s) != 40 && len(s) != 64 {
		return "", fmt.Errorf("object id %q: want 40 or 64 hex characters, got %d", s, len(s))
	}
	if strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("object id %q: not hexadecimal", s)
	}
	return ObjectID(s), nil
}

// Revision is a commit of a repository, identified.
type Revision struct {
	URL    string   `json:"url"`              // without credentials
	Ref    string   `json:"ref,omitempty"`    // full name, "refs/heads/main"; empty for a commit that was named itself
	ID     ObjectID `json:"id"`               // the commit
	Tag    ObjectID `json:"tag,omitempty"`    // the annotated tag that Ref names, if it names one
	Signer string   `json:"signer,omitempty"` // verified signer, empty if none was asked for
}

// String returns the form that status and trailers use: "refs/heads/main@sha1:0123...".
func (r Revision) String() string {
	algorithm := "sha1"
	if len(r.ID) == 64 {
		algorithm = "sha256"
	}
	return r.Ref + "@" + algorithm + ":" + string(r.ID)
}

// ParseRevision reads what String wrote. URL, Tag and Signer stay empty.
func ParseRevision(s string) (Revision, error) {
	ref, rest, found := strings.Cut(s, "@")
	if !found {
		return Revision{}, fmt.Errorf("revision %q: want REF@ALGORITHM:ID", s)
	}
	_, hex, found := strings.Cut(rest, ":")
	if !found {
		return Revision{}, fmt.Errorf("revision %q: want REF@ALGORITHM:ID", s)
	}
	id, err := ParseObjectID(hex)
	if err != nil {
		return Revision{}, fmt.Errorf("revision %q: %w", s, err)
	}
	return Revision{Ref: ref, ID: id}, nil
}

// EntryKind says what stands at a path of a Tree.
type EntryKind uint8

// The kinds of entries. Absent is the zero value: a path that nobody looked up is not there.
const (
	Absent EntryKind = iota
	File
	Executable
	Directory
	Symlink
	Submodule
)

// Entry is what a Tree holds at one path, without following links.
type Entry struct {
	Kind EntryKind
	ID   ObjectID // blob or tree id; for a submodule the commit
	Size int64    // bytes of a File, Executable or Symlink; 0 otherwise
}

// Tree is a read-only tree of Git objects. Paths are slash-separated, relative
// to the root, as fs.ValidPath wants them; "." is the root.
//
// Open and the functions of io/fs follow symbolic links inside the tree. A link
// that leaves the tree, or a chain of more than 40 links, is an error.
type Tree interface {
	fs.FS
	fs.ReadFileFS
	fs.ReadDirFS
	// Entry returns what stands at path itself. A missing path is an Entry of
	// kind Absent and no error; an error means that nobody knows.
	Entry(path string) (Entry, error)
	// ReadLink returns the target of the symbolic link at path, as stored.
	ReadLink(path string) (string, error)
}

// Snapshot is a Tree at a Revision.
type Snapshot struct {
	Revision Revision
	Tree     Tree
}

// Change sets or removes one file of a tree.
type Change struct {
	Path    string    // slash-separated, relative to the root
	Content []byte    // ignored when Delete
	Mode    EntryKind // File, Executable or Symlink; the zero value keeps what is there, else File
	Delete  bool
}

// Errors on which callers branch.
var (
	// ErrMoved says that a ref is not where a compare-and-swap expected it: fetch and compute again.
	ErrMoved = errors.New("the ref has moved")
	// ErrNotFound says that a ref or object is definitely not there.
	ErrNotFound = errors.New("not found")
	// ErrProtected says that the host does not let this user push to a branch, now or later: people decide what goes there.
	ErrProtected = errors.New("the Git host refuses it")
	// ErrUnreachable says that the host did not answer: nothing is known about the ref.
	ErrUnreachable = errors.New("the Git host cannot be reached")
)
