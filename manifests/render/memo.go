package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
)

const (
	memoEntries = 4        // per key, so that a revert to an older state is a hit as well
	memoKeys    = 4096     // on disk; the longest unused ones go at the next start
	memoBytes   = 64 << 20 // of Sets in memory, as JSON
)

// entry is one Set with the reads that it depends on.
type entry struct {
	reads gitsource.Reads
	set   manifests.Set
	size  int // of the Set as JSON, in bytes
}

// stored is an entry on disk.
type stored struct {
	Reads   gitsource.Reads  `json:"reads"`
	Digest  manifests.Digest `json:"digest"`
	Objects json.RawMessage  `json:"objects"`
}

// memo keeps entries by key, newest first, in memory and below dir.
type memo struct {
	dir string // empty: in memory only

	mu    sync.Mutex
	known map[string][]entry
	order []string // keys of known, longest unused first
	bytes int
}

// memoKey digests what a Set depends on besides the reads.
func memoKey(spec Spec) (string, error) {
	content, err := json.Marshal(struct {
		Version string
		Spec    Spec
	}{version, spec})
	if err != nil {
		return "", &Error{Path: spec.Path, Cause: fmt.Errorf("spec cannot be encoded: %w", err)}
	}
	return strings.TrimPrefix(string(manifests.DigestOf(content)), "sha256:"), nil
}

func openMemo(dir string) (*memo, error) {
	m := &memo{dir: dir, known: map[string][]entry{}}
	if dir == "" {
		return m, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("renderer: memo: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("renderer: memo: %w", err)
	}
	return m, m.trim()
}

// trim removes the keys that were not used for longest.
func (m *memo) trim() error {
	keys, err := os.ReadDir(m.dir)
	if err != nil {
		return fmt.Errorf("renderer: memo: %w", err)
	}
	if len(keys) <= memoKeys {
		return nil
	}
	used := map[string]int64{}
	for _, key := range keys {
		if info, err := key.Info(); err == nil {
			used[key.Name()] = info.ModTime().UnixNano()
		}
	}
	slices.SortFunc(keys, func(a, b os.DirEntry) int { return int(min(max(used[b.Name()]-used[a.Name()], -1), 1)) })
	for _, key := range keys[memoKeys:] {
		if err := os.RemoveAll(filepath.Join(m.dir, key.Name())); err != nil {
			return fmt.Errorf("renderer: memo: %w", err)
		}
	}
	return nil
}

// find returns the newest entry of key that holds for tree.
func (m *memo) find(key string, tree gitsource.Tree) (entry, bool, error) {
	for _, candidate := range m.candidates(key) {
		same, err := candidate.reads.Hold(tree)
		if err != nil {
			return entry{}, false, err
		}
		if same {
			return candidate, true, nil
		}
	}
	return entry{}, false, nil
}

// candidates returns the entries of key, from the disk the first time.
func (m *memo) candidates(key string) []entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, ok := m.known[key]
	if !ok && m.dir != "" {
		entries = m.load(key)
	}
	m.remember(key, entries)
	return entries
}

// remember puts entries in memory and forgets the keys that were not used for longest.
func (m *memo) remember(key string, entries []entry) {
	m.forget(key)
	if len(entries) == 0 {
		return
	}
	m.known[key] = entries
	m.order = append(m.order, key)
	for _, one := range entries {
		m.bytes += one.size
	}
	for m.bytes > memoBytes && len(m.order) > 1 {
		m.forget(m.order[0])
	}
}

func (m *memo) forget(key string) {
	for _, one := range m.known[key] {
		m.bytes -= one.size
	}
	delete(m.known, key)
	m.order = slices.DeleteFunc(m.order, func(other string) bool { return other == key })
}

// keep puts a new entry first. content is its Set as JSON; a secret one stays in memory.
func (m *memo) keep(key string, added entry, content []byte, secret bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries := append([]entry{added}, m.known[key]...)
	m.remember(key, entries[:min(len(entries), memoEntries)])
	if m.dir != "" && !secret {
		// The memo is a cache: a full disk must not keep a good Set from being applied.
		_ = m.store(key, added, content)
	}
}

// holdsSecret reports whether set must stay off the disk.
func holdsSecret(set manifests.Set) bool {
	for _, object := range set.Objects {
		if ref := manifests.RefOf(object); ref.Group == "" && ref.Kind == "Secret" {
			return true
		}
	}
	return false
}

// files lists the entries of key on disk, newest first.
func (m *memo) files(key string) []string {
	names, _ := filepath.Glob(filepath.Join(m.dir, key, "*.json"))
	slices.Sort(names)
	slices.Reverse(names)
	return names
}

// load reads the entries of key. One that is damaged is removed: it is a miss, not an error.
func (m *memo) load(key string) []entry {
	var entries []entry
	now := time.Now()
	_ = os.Chtimes(filepath.Join(m.dir, key), now, now) // for trim; a key that is not there has no time
	for _, name := range m.files(key) {
		loaded, err := loadEntry(name)
		if err != nil {
			_ = os.Remove(name)
			continue
		}
		entries = append(entries, loaded)
	}
	return entries[:min(len(entries), memoEntries)]
}

// loadEntry reads a file of one line with the digest of the rest.
func loadEntry(name string) (entry, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return entry{}, err
	}
	sum, body, _ := bytes.Cut(content, []byte("\n"))
	if string(sum) != string(manifests.DigestOf(body)) {
		return entry{}, errors.New("damaged")
	}
	var on stored
	if err := json.Unmarshal(body, &on); err != nil {
		return entry{}, err
	}
	set, err := decodeSet(on.Objects)
	if err != nil {
		return entry{}, err
	}
	if set.Digest != on.Digest || len(on.Reads) == 0 {
		return entry{}, errors.New("damaged")
	}
	return entry{reads: on.Reads, set: set, size: len(on.Objects)}, nil
}

// store writes an entry beside the older ones of its key and removes the surplus.
func (m *memo) store(key string, added entry, content []byte) error {
	body, err := json.Marshal(stored{Reads: added.reads, Digest: added.set.Digest, Objects: content})
	if err != nil {
		return err
	}
	dir := filepath.Join(m.dir, key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	existing := m.files(key)
	number := 1
	if len(existing) > 0 {
		if _, err := fmt.Sscanf(filepath.Base(existing[0]), "%d.json", &number); err != nil {
			return err
		}
		number++
	}
	temporary, err := os.CreateTemp(dir, "new-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = fmt.Fprintf(temporary, "%s\n%s", manifests.DigestOf(body), body)
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), filepath.Join(dir, fmt.Sprintf("%012d.json", number))); err != nil {
		return err
	}
	for _, name := range existing[min(len(existing), memoEntries-1):] {
		_ = os.Remove(name)
	}
	return nil
}
