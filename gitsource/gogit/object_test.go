package gogit_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
)

func TestObject(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"a": "1"})
	h.tag("-a", "-m", "noted", "noted")
	s := h.store(t.TempDir())
	revision := at(t, s, "noted")
	for _, o := range []struct {
		kind string
		id   gitsource.ObjectID
	}{{"commit", id}, {"tag", revision.Tag}} {
		got, err := s.Object(context.Background(), o.id)
		// git takes the newline at the end for its own.
		if want := h.git(h.work, "cat-file", o.kind, string(o.id)); err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: %q, %v, want %q", o.kind, got, err, want)
		}
	}
	blob := gitsource.ObjectID(h.git(h.work, "rev-parse", "HEAD:a"))
	if _, err := s.Object(context.Background(), blob); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("a blob: %v", err)
	}
}

// What stands in a loose file is not believed because of the file's name.
func TestATamperedObjectIsFoundAndFetchedAgain(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"a": "1"})
	dir := t.TempDir()
	s := h.store(dir)
	fetch(t, s)
	content, err := s.Object(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	evil := bytes.Replace(content, []byte("one"), []byte("two"), 1)
	for _, pack := range packsOf(t, dir) {
		if err := os.Remove(pack); err != nil {
			t.Fatal(err)
		}
	}
	// The tree stays, so that nothing else is missing.
	loose(t, dir, id, "commit", evil)
	tree := gitsource.ObjectID(h.git(h.work, "rev-parse", "HEAD^{tree}"))
	raw := h.raw("cat-file", "tree", string(tree))
	loose(t, dir, tree, "tree", raw)
	s = h.store(dir)
	if got, err := s.Object(context.Background(), id); err == nil {
		t.Fatalf("got %q", got)
	}
	fetch(t, s)
	if got, err := s.Object(context.Background(), id); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after a fetch: %q, %v", got, err)
	}
}

func packsOf(t *testing.T, dir string) []string {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, "*", "objects", "pack", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	return packs
}

// loose writes an object's file in the newest generation of a store.
func loose(t *testing.T, dir string, id gitsource.ObjectID, kind string, content []byte) {
	t.Helper()
	generations, err := filepath.Glob(filepath.Join(dir, "[0-9]*"))
	if err != nil || len(generations) == 0 {
		t.Fatal(generations, err)
	}
	name := filepath.Join(generations[len(generations)-1], "objects", string(id[:2]), string(id[2:]))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	if _, err := w.Write(append([]byte(kind+" "+strconv.Itoa(len(content))+"\x00"), content...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
