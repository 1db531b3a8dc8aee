package gogit_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

// files returns the files of the newest generation of a store for which a pattern of their path holds.
func files(t *testing.T, dir string, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "[0-9]*", pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	for _, name := range found {
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func truncate(t *testing.T, name string) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

func garbage(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, []byte("\x00\xffnot what it was\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A store on a disk that loses or spoils what it holds mends itself by the next fetches, with and without a
// restart, and keeps the pinned commits.
func TestSpoiledStoresMendThemselves(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"a pack is cut off": func(t *testing.T, dir string) {
			for _, pack := range files(t, dir, "objects/pack/*.pack") {
				truncate(t, pack)
			}
		},
		"an index is cut off": func(t *testing.T, dir string) {
			for _, index := range files(t, dir, "objects/pack/*.idx") {
				truncate(t, index)
			}
		},
		"a pack is garbage": func(t *testing.T, dir string) {
			for _, pack := range files(t, dir, "objects/pack/*.pack") {
				garbage(t, pack)
			}
		},
		"the objects are gone": func(t *testing.T, dir string) {
			for _, pack := range files(t, dir, "objects/pack/*") {
				if err := os.Remove(pack); err != nil {
					t.Fatal(err)
				}
			}
		},
		"refs are garbage": func(t *testing.T, dir string) {
			generation := filepath.Dir(files(t, dir, "refs")[0])
			if err := os.Chmod(filepath.Join(generation, "refs"), 0o700); err != nil { //nolint:gosec // a folder
				t.Fatal(err)
			}
			err := filepath.WalkDir(filepath.Join(generation, "refs"), func(name string, entry fs.DirEntry, err error) error {
				if err == nil && !entry.IsDir() {
					garbage(t, name)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		"the shallow file is garbage": func(t *testing.T, dir string) {
			for _, shallow := range files(t, dir, "shallow") {
				garbage(t, shallow)
			}
		},
		"the generation is empty": func(t *testing.T, dir string) {
			generation := filepath.Dir(files(t, dir, "shallow")[0])
			if err := os.RemoveAll(generation); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(generation, 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, restart := range []bool{true, false} {
			kind := map[bool]string{true: ", then a restart", false: ", while it is used"}[restart]
			t.Run(name+kind, func(t *testing.T) {
				h := newHost(t)
				h.commit("old", map[string]string{"a": "0"})
				pinned := h.commit("pinned", map[string]string{"a": "1", "dir/b": "1"})
				dir := t.TempDir()
				s := h.store(dir)
				fetch(t, s)
				if err := s.Pin("shop", pinned); err != nil {
					t.Fatal(err)
				}
				spoil(t, dir)
				if restart {
					s = h.store(dir)
				}
				next := h.commit("next", map[string]string{"a": "2", "dir/b": "2"})
				mends(t, s, next, pinned)
				if read(t, s, next, "dir/b") != "2" || read(t, s, pinned, "dir/b") != "1" {
					t.Error("wrong content")
				}
				last := h.commit("last", map[string]string{"a": "0"}) // what only the history had
				fetch(t, s)
				if read(t, s, last, "a") != "0" || read(t, s, last, "dir/b") != "2" {
					t.Error("wrong content after the next fetch")
				}
			})
		}
	}
}

// mends fetches and reads, as an agent does, until both succeed: at most three times.
func mends(t *testing.T, s *gogit.Store, want, pinned gitsource.ObjectID) {
	t.Helper()
	var last error
	for range 3 {
		revision, err := s.Fetch(context.Background(), mainRef)
		for _, id := range []gitsource.ObjectID{want, pinned} {
			if err == nil {
				var snapshot gitsource.Snapshot
				if snapshot, err = s.SnapshotOf(context.Background(), id); err == nil {
					_, err = snapshot.Tree.ReadFile("dir/b")
				}
			}
		}
		if err == nil && revision.ID == want {
			return
		}
		last = err
	}
	t.Fatalf("it is not mended: %v", last)
}
