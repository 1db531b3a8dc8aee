package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDifferences(t *testing.T) {
	fresh, committed := t.TempDir(), t.TempDir()
	write(t, fresh, map[string]string{"same": "1", "changed": "2", "forgotten": "3"})
	write(t, committed, map[string]string{"same": "1", "changed": "1", "left over": "4"})
	got, err := differences(fresh, committed)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range got {
		names = append(names, filepath.Base(name))
	}
	slices.Sort(names)
	if want := []string{"changed", "forgotten", "left over"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

// What a user that is not root gets can be read by it, whatever the umask was; links stay links, programs stay programs.
func TestCopiesCanBeRead(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	write(t, from, map[string]string{"text": "1", "program": "2"})
	if err := os.Chmod(filepath.Join(from, "program"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("text", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"text", "program", "link"} {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, "deep", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(to, readable); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"deep": 0o755, "deep/text": 0o644, "deep/program": 0o755} {
		info, err := os.Stat(filepath.Join(to, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: mode %o, want %o", name, info.Mode().Perm(), want)
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "deep", "link")); target != "text" {
		t.Errorf("link: %q, %v", target, err)
	}
}
