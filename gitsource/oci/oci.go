// Package oci reads what registries and chart repositories hold: OCI artifacts and Helm charts, as Snapshots.
//
// An Artifact follows a tag, a range of versions or a digest. What it resolves to is pulled once, unpacked under limits
// into a store on disk that is addressed by content, and read from there: a registry that is down, or that has deleted
// what was applied, changes nothing for what is here. Entries carry the object ids that Git (in its SHA-256 format) would
// give them, so that whoever remembers by ids need not know where a tree came from.
//
// The package refuses what a Git tree could not hold (hard links, devices, paths and links that leave the tree), what is
// larger than its limits, other content than its digest says, and registries without TLS, those of loopback excepted. It
// executes nothing: neither what it unpacks, nor programs that know passwords.
package oci

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

// Limits bound one artifact, and all of them on disk. They are named in the error that reports them.
type Limits struct {
	Archive  int64 // bytes of the layer or chart as it is sent; default 64 MiB
	Unpacked int64 // bytes of what it unpacks to; default 256 MiB
	Entries  int   // files, folders and links; default 20,000
	Depth    int   // nested folders; default 64
	Index    int64 // bytes of the index.yaml of a chart repository, and of a list of tags; default 32 MiB
	Kept     int64 // bytes of all artifacts on disk before unused ones are removed, those that are pinned excepted; default 1 GiB
}

// ErrLimit is in the chain of every error that reports one of the Limits.
var ErrLimit = errors.New("the limit of artifacts")

// ContentError is a mistake in what a registry holds: reading it again gives the same answer until it is replaced.
type ContentError struct {
	Subject string // the artifact, or the file of an index
	Path    string // in the artifact; may be empty
	Cause   error
}

// Error returns "oci://HOST/PATH@sha256:...: PATH: cause".
func (e *ContentError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s: %v", e.Subject, e.Cause)
	}
	return fmt.Sprintf("%s: %s: %v", e.Subject, e.Path, e.Cause)
}

// UserMistake reports true: only another push can mend it.
func (e *ContentError) UserMistake() bool { return true }

// Unwrap returns the cause.
func (e *ContentError) Unwrap() error { return e.Cause }

// Options of a Store.
type Options struct {
	// Dir is a folder that one process may use at a time; made if need be. It may be lost at any time.
	Dir    string
	Limits Limits
	// Logins are asked anew each time for sources that have none of their own; nil for anonymous.
	Logins func() (Logins, error)
	// Transport carries the requests; default one with timeouts. It sees credentials.
	Transport http.RoundTripper
	Now       func() time.Time // default time.Now
}

// Store keeps unpacked artifacts. It may be used from many goroutines.
type Store struct {
	dir    string
	limits Limits
	client http.RoundTripper
	now    func() time.Time
	logins func() (Logins, error)
	tokens googleTokens

	mu      sync.Mutex
	open    map[string]*tree // by key, at most maxOpen
	order   []string         // keys of open, longest unused first
	refused map[string]error // by key: what was found out about content need not be downloaded again
	resting map[string]time.Time
	indexes map[string]*chartIndex
}

const (
	maxOpen    = 16
	maxRefused = 256
	maxIndexes = 64
)

// New checks the options and makes the folder. It asks no registry.
func New(o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, errors.New("artifacts: no folder (set Options.Dir)")
	}
	s := &Store{
		dir: o.Dir, limits: o.Limits, client: o.Transport, now: o.Now, logins: o.Logins,
		open: map[string]*tree{}, refused: map[string]error{}, resting: map[string]time.Time{}, indexes: map[string]*chartIndex{},
	}
	s.defaults()
	if err := os.RemoveAll(s.stagingDir()); err != nil { // of a process that was killed
		return nil, fmt.Errorf("artifacts: %w", err)
	}
	for _, dir := range []string{s.blobsDir(), s.treesDir(), s.pinsDir(), s.stagingDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("artifacts: %w", err)
		}
	}
	return s, nil
}

func (s *Store) defaults() {
	if s.now == nil {
		s.now = time.Now
	}
	if s.client == nil {
		s.client = defaultTransport()
	}
	s.client = &polite{next: s.client, store: s}
	l := &s.limits
	for _, limit := range []struct {
		value    *int64
		standard int64
	}{{&l.Archive, 64 << 20}, {&l.Unpacked, 256 << 20}, {&l.Index, 32 << 20}, {&l.Kept, 1 << 30}} {
		if *limit.value <= 0 {
			*limit.value = limit.standard
		}
	}
	if l.Entries <= 0 {
		l.Entries = 20_000
	}
	if l.Depth <= 0 {
		l.Depth = 64
	}
}

func (s *Store) blobsDir() string   { return filepath.Join(s.dir, "blobs") }
func (s *Store) treesDir() string   { return filepath.Join(s.dir, "trees") }
func (s *Store) pinsDir() string    { return filepath.Join(s.dir, "pins") }
func (s *Store) stagingDir() string { return filepath.Join(s.dir, "new") }

// unreachable is an error after which nothing is known.
type unreachable struct{ error }

func (e unreachable) Unwrap() error        { return e.error }
func (e unreachable) Is(target error) bool { return target == gitsource.ErrUnreachable }
