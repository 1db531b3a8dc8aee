package revert_test

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // Git's object names
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
)

// tree is a Tree in memory. A content that starts with "-> " is a symbolic link, "!" in
// front makes a file executable, "?" one that cannot be read.
type tree map[string]string

func (t tree) mapFS() fstest.MapFS {
	m := fstest.MapFS{}
	for path, content := range t {
		m[path] = &fstest.MapFile{Data: []byte(strings.TrimPrefix(content, "!")), Mode: 0o644}
	}
	return m
}

func (t tree) Open(path string) (fs.File, error)          { return t.mapFS().Open(path) }
func (t tree) ReadDir(path string) ([]fs.DirEntry, error) { return t.mapFS().ReadDir(path) }
func (t tree) ReadLink(path string) (string, error)       { return strings.TrimPrefix(t[path], "-> "), nil }

func (t tree) ReadFile(path string) ([]byte, error) {
	if strings.HasPrefix(t[path], "?") {
		return nil, errors.New("unreadable")
	}
	return t.mapFS().ReadFile(path)
}

func (t tree) Entry(path string) (gitsource.Entry, error) {
	if content, found := t[path]; found {
		kind := gitsource.File
		switch {
		case strings.HasPrefix(content, "-> "):
			kind = gitsource.Symlink
		case strings.HasPrefix(content, "!"):
			kind, content = gitsource.Executable, content[1:]
		}
		return gitsource.Entry{Kind: kind, ID: sum(content), Size: int64(len(content))}, nil
	}
	all := ""
	for _, p := range slices.Sorted(func(yield func(string) bool) {
		for p := range t {
			if !yield(p) {
				return
			}
		}
	}) {
		if path == "." || strings.HasPrefix(p, path+"/") {
			all += p + "\x00" + t[p] + "\x00"
		}
	}
	if all == "" && path != "." {
		return gitsource.Entry{}, nil
	}
	return gitsource.Entry{Kind: gitsource.Directory, ID: sum(all)}, nil
}

func sum(s string) gitsource.ObjectID {
	h := sha1.Sum([]byte(s)) //nolint:gosec // see above
	return gitsource.ObjectID(hex.EncodeToString(h[:]))
}

func show(changes []gitsource.Change, conflicts []revert.Conflict) string {
	var b strings.Builder
	for _, c := range changes {
		switch {
		case c.Delete:
			fmt.Fprintf(&b, "- %s\n", c.Path)
		default:
			fmt.Fprintf(&b, "= %s %d %q\n", c.Path, c.Mode, c.Content)
		}
	}
	for _, c := range conflicts {
		fmt.Fprintf(&b, "! %s %s\n", c.Path, c.Why)
	}
	return b.String()
}

func TestMerge(t *testing.T) {
	const app = "apps/shop/production"
	ten := "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"
	for _, test := range []struct {
		name               string
		base, ours, theirs tree
		want               string
	}{
		{
			"the bad file goes back, a later file stays",
			tree{app + "/k": "bad", "apps/other/k": "1"},
			tree{app + "/k": "bad", "apps/other/k": "2", app + "/new": "n"},
			tree{app + "/k": "good", "apps/other/k": "0"},
			"= " + app + "/k 1 \"good\"\n",
		},
		{
			"nothing to do where the tip went back already",
			tree{app + "/k": "bad"},
			tree{app + "/k": "good"},
			tree{app + "/k": "good"},
			"",
		},
		{
			"what the bad version added and removed",
			tree{app + "/added": "x", "z": ""},
			tree{app + "/added": "x", "z": ""},
			tree{app + "/removed": "y", "z": ""},
			"- " + app + "/added\n= " + app + "/removed 1 \"y\"\n",
		},
		{
			"outside of the path nothing changes",
			tree{"apps/shop/base/k": "bad"},
			tree{"apps/shop/base/k": "bad"},
			tree{"apps/shop/base/k": "good"},
			"",
		},
		{
			"other lines of the same file stay",
			tree{app + "/k": strings.Replace(ten, "2\n", "bad\n", 1)},
			tree{app + "/k": strings.Replace(strings.Replace(ten, "2\n", "bad\n", 1), "8\n", "later\n", 1)},
			tree{app + "/k": ten},
			"= " + app + "/k 1 " + fmt.Sprintf("%q", strings.Replace(ten, "8\n", "later\n", 1)) + "\n",
		},
		{
			"the same line changed since",
			tree{app + "/k": "a\nbad\nc\n"},
			tree{app + "/k": "a\nfixed\nc\n"},
			tree{app + "/k": "a\ngood\nc\n"},
			"! " + app + "/k was changed on both sides at lines 2 to 2\n",
		},
		{
			"removed since",
			tree{app + "/k": "bad", "z": ""},
			tree{"z": ""},
			tree{app + "/k": "good", "z": ""},
			"! " + app + "/k was changed on one side and removed or added on the other\n",
		},
		{
			"mode and link",
			tree{app + "/x": "s", app + "/l": "-> a"},
			tree{app + "/x": "s", app + "/l": "-> a"},
			tree{app + "/x": "!s", app + "/l": "-> b"},
			"= " + app + "/l 4 \"b\"\n= " + app + "/x 2 \"s\"\n",
		},
		{
			"a file that became a directory",
			tree{app + "/d/f": "1"},
			tree{app + "/d/f": "1"},
			tree{app + "/d": "file"},
			"= " + app + "/d 1 \"file\"\n- " + app + "/d/f\n",
		},
		{
			"a directory in which something new stays",
			tree{app + "/d/f": "1"},
			tree{app + "/d/f": "1", app + "/d/new": "2"},
			tree{app + "/d": "file"},
			"- " + app + "/d/f\n! " + app + "/d is a directory now, in which " + app + "/d/new stays\n",
		},
		{
			"a file stands where a directory has to come",
			tree{app + "/z": ""},
			tree{app + "/z": "", app + "/d": "new"},
			tree{app + "/z": "", app + "/d/f": "1"},
			"! " + app + "/d/f " + app + "/d is a file now\n",
		},
		{
			"binary",
			tree{app + "/k": "a\x00"},
			tree{app + "/k": "b\x00"},
			tree{app + "/k": "c\x00"},
			"! " + app + "/k was changed on both sides and is not text\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			changes, conflicts, err := revert.Merge(test.base, test.ours, test.theirs, revert.Within(app))
			if err != nil {
				t.Fatal(err)
			}
			if got := show(changes, conflicts); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestMergeOfUnreadableTreeIsAnError(t *testing.T) {
	if _, _, err := revert.Merge(tree{"a/k": "1"}, tree{"a/k": "1"}, tree{"a/k": "?"}, revert.Within("a")); err == nil {
		t.Error("an unreadable file was merged")
	}
}

func TestWithin(t *testing.T) {
	within := revert.Within("apps/shop")
	for path, want := range map[string]bool{"apps/shop/k": true, "apps/shop": false, "apps/shop2/k": false, "k": false} {
		if within(path) != want {
			t.Errorf("%s: got %v", path, !want)
		}
	}
	if !revert.Within(".")("k") {
		t.Error(". does not hold all")
	}
}

// FuzzText: one side that changed nothing gives the other side; both orders agree; and
// where git merge-file finds a merge, ours is the same or a conflict.
func FuzzText(f *testing.F) {
	f.Add([]byte("a\nb\nc\nd\ne\n"), []byte("a\nx\nc\nd\ne\n"), []byte("a\nb\nc\nd\nY\n"))
	f.Add([]byte(""), []byte("a"), []byte("a\n"))
	f.Add([]byte(""), []byte("a"), bytes.Repeat([]byte("\n"), 1200))
	f.Fuzz(func(t *testing.T, base, ours, theirs []byte) {
		if got, why := revert.Text(base, base, theirs); why != "" || !bytes.Equal(got, theirs) {
			t.Fatalf("ours unchanged: got %q (%s), want %q", got, why, theirs)
		}
		if got, why := revert.Text(base, ours, base); why != "" || !bytes.Equal(got, ours) {
			t.Fatalf("theirs unchanged: got %q (%s), want %q", got, why, ours)
		}
		one, why := revert.Text(base, ours, theirs)
		other, whyOther := revert.Text(base, theirs, ours)
		if (why == "") != (whyOther == "") || !bytes.Equal(one, other) {
			t.Fatalf("orders differ: %q (%s) and %q (%s)", one, why, other, whyOther)
		}
	})
}

// TestTextAgreesWithGit compares with git merge-file, which is slow and obvious.
func TestTextAgreesWithGit(t *testing.T) {
	dir := t.TempDir()
	lines := strings.SplitAfter("apiVersion: v1\nkind: A\nimages:\n- name: shop\n  digest: one\nlabels:\n  a: b\nresources:\n- base\n- other\nx: y\n", "\n")
	edit := func(at int, to string) string {
		edited := slices.Clone(lines)
		edited[at] = to
		return strings.Join(edited, "")
	}
	base := strings.Join(lines, "")
	merged := 0
	for i := range len(lines) - 1 {
		for j := range len(lines) - 1 {
			for _, to := range []string{"", "changed\n", "one\ntwo\n"} {
				ours, theirs := edit(i, "ours\n"), edit(j, to)
				want, clean := gitMerge(t, dir, base, ours, theirs)
				got, why := revert.Text([]byte(base), []byte(ours), []byte(theirs))
				if why == "" {
					merged++
				}
				if why == "" && (!clean || string(got) != want) {
					t.Errorf("%d %d %q: got\n%s\nwant (clean: %v)\n%s", i, j, to, got, clean, want)
				}
				if why != "" && clean && max(i-j, j-i) > 1 {
					t.Errorf("%d %d %q: conflict (%s) where git merges", i, j, to, why)
				}
			}
		}
	}
	if merged < 100 {
		t.Errorf("only %d merges", merged)
	}
}

func gitMerge(t *testing.T, dir, base, ours, theirs string) (string, bool) {
	t.Helper()
	for name, text := range map[string]string{"base": base, "ours": ours, "theirs": theirs} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("git", "merge-file", "-p", "ours", "base", "theirs")
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err == nil
}
