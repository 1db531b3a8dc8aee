package gogit_test

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

// FuzzPaths holds a tree of files, folders and symbolic links against the same tree in a folder that is read by os.Root, the
// kernel's own idea of what lies inside: each path leads to the same content in both, or to none.
func FuzzPaths(f *testing.F) {
	f.Add("a=1 b/c=2 d>b/c e>../a", "e")
	f.Add("a>b b>a", "a")
	f.Add("a/b>.. c=1", "a/b/c")
	f.Add("a/b>../.. c=1", "a/b/c")
	f.Add("a>/etc b>./a", "b/passwd")
	f.Add("a/b/c=1 d>a//b/./ e>d/../b", "e/c")
	f.Add("a>b/ b=1", "a")
	f.Add("a>b/../c c=1", "a")
	store, err := gogit.Open(f.Context(), gogit.Options{Dir: f.TempDir(), URL: "http://127.0.0.1:1/none.git"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, files, name string) {
		entries := parseFiles(files)
		if len(entries) == 0 {
			return
		}
		tree := written(t, store, entries)
		dir := t.TempDir()
		extract(t, dir, entries)
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		for _, one := range append(slices.Collect(maps.Keys(entries)), name) {
			if !fs.ValidPath(one) {
				if _, err := tree.ReadFile(one); err == nil {
					t.Fatalf("%q is read, and is no path", one)
				}
				continue
			}
			got, gotErr := tree.ReadFile(one)
			want, wantErr := root.ReadFile(one)
			if (gotErr == nil) != (wantErr == nil) || string(got) != string(want) {
				t.Fatalf("%q of %q: got %q, %v; the kernel reads %q, %v", one, files, got, gotErr, want, wantErr)
			}
			got2, err := fs.ReadFile(tree, one)
			if (err == nil) != (gotErr == nil) || string(got2) != string(got) {
				t.Fatalf("%q of %q: opened %q, %v; read %q, %v", one, files, got2, err, got, gotErr)
			}
		}
	})
}

// parseFiles reads "path=content" and "path>target"; what is in the way of an earlier one is left out.
func parseFiles(text string) map[string]gitsource.Change {
	const most = 12
	entries := map[string]gitsource.Change{}
	for _, word := range strings.Fields(text)[:min(most, len(strings.Fields(text)))] {
		at := strings.IndexAny(word, "=>")
		if at <= 0 || strings.ContainsFunc(word, func(r rune) bool { return !strings.ContainsRune("abcde012./=>", r) }) {
			continue
		}
		name, content := word[:at], word[at+1:]
		if !fs.ValidPath(name) || name == "." || len(name) > 100 || taken(entries, name) || word[at] == '>' && content == "" {
			continue
		}
		change := gitsource.Change{Path: name, Content: []byte(content), Mode: gitsource.File}
		if word[at] == '>' {
			change.Mode = gitsource.Symlink
		}
		entries[name] = change
	}
	return entries
}

func taken(entries map[string]gitsource.Change, name string) bool {
	for other := range entries {
		if other == name || strings.HasPrefix(other, name+"/") || strings.HasPrefix(name, other+"/") {
			return true
		}
	}
	return false
}

func written(t *testing.T, store *gogit.Store, entries map[string]gitsource.Change) gitsource.Tree {
	t.Helper()
	id, err := store.WriteTree("", slices.Collect(maps.Values(entries)))
	if err != nil {
		t.Fatal(err)
	}
	person := gitsource.Person{Name: "A", Email: "a@b", When: time.Unix(1, 0)}
	commit, err := store.Commit(gitsource.NewCommit{Tree: id, Message: "m", Author: person, Committer: person})
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := store.Snapshot(gitsource.Revision{ID: commit})
	if err != nil {
		t.Fatal(err)
	}
	return snapshot.Tree
}

func extract(t *testing.T, dir string, entries map[string]gitsource.Change) {
	t.Helper()
	for name, entry := range entries {
		full := filepath.Join(dir, name)
		err := os.MkdirAll(path.Dir(full), 0o700)
		if err == nil && entry.Mode == gitsource.Symlink {
			err = os.Symlink(string(entry.Content), full)
		} else if err == nil {
			err = os.WriteFile(full, entry.Content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
