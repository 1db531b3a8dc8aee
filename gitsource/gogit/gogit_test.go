package gogit_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

const mainRef = "refs/heads/main"

func fetch(t *testing.T, s *gogit.Store) gitsource.Revision {
	t.Helper()
	revision, err := s.Fetch(context.Background(), mainRef)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func read(t *testing.T, s *gogit.Store, id gitsource.ObjectID, name string) string {
	t.Helper()
	snapshot, err := s.SnapshotOf(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	content, err := snapshot.Tree.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func person() gitsource.Person {
	return gitsource.Person{Name: "A", Email: "a@b", When: time.Unix(1700000000, 0).UTC()}
}

// write commits changes on a parent.
func write(t *testing.T, s *gogit.Store, parent gitsource.ObjectID, changes ...gitsource.Change) gitsource.ObjectID {
	t.Helper()
	tree, err := s.WriteTree(parent, changes)
	if err != nil {
		t.Fatal(err)
	}
	commit := gitsource.NewCommit{Tree: tree, Message: "change", Author: person(), Committer: person()}
	if parent != "" {
		commit.Parents = []gitsource.ObjectID{parent}
	}
	id, err := s.Commit(commit)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestFetchFollowsABranch(t *testing.T) {
	h := newHost(t)
	for i := range 3 {
		h.commit("old", map[string]string{"a": fmt.Sprint("old", i)})
	}
	dir := t.TempDir()
	s := h.store(dir)
	first := fetch(t, s)
	if first.URL != h.url() || first.Ref != mainRef {
		t.Errorf("got %+v", first)
	}
	if got := h.packs.Load(); got != 1 {
		t.Errorf("first fetch: %d downloads", got)
	}
	for range 3 {
		fetch(t, s)
	}
	if got := h.packs.Load(); got != 1 {
		t.Errorf("unchanged ref: %d downloads", got)
	}
	// What an ancestor beyond the shallow boundary held comes back: the host must send it.
	next := h.commit("back", map[string]string{"a": "old0", "dir/b": "new"})
	if got := fetch(t, s); got.ID != next {
		t.Errorf("got %s, want %s", got.ID, next)
	}
	if read(t, s, next, "a") != "old0" || read(t, s, next, "dir/b") != "new" || read(t, s, first.ID, "a") != "old2" {
		t.Error("wrong content")
	}
	before := h.packs.Load()
	if got := fetch(t, h.store(dir)); got.ID != next || h.packs.Load() != before {
		t.Errorf("after a restart: %s, %d downloads", got.ID, h.packs.Load()-before)
	}
}

func TestFetchErrors(t *testing.T) {
	h := newHost(t)
	s := h.store(t.TempDir())
	ctx := context.Background()
	if _, err := s.Fetch(ctx, mainRef); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("empty repository: %v", err)
	}
	if refs, err := s.Refs(ctx); err != nil || len(refs) != 0 {
		t.Errorf("empty repository: %v, %v", refs, err)
	}
	h.commit("one", map[string]string{"a": "1"})
	if _, err := s.Fetch(ctx, "refs/heads/other"); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("missing branch: %v", err)
	}
	if _, err := s.SnapshotOf(ctx, gitsource.ObjectID(strings.Repeat("a", 40))); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("missing commit: %v", err)
	}
	other, err := gogit.Open(ctx, gogit.Options{Dir: t.TempDir(), URL: h.server.URL + "/missing.git"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Fetch(ctx, mainRef); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("missing repository: %v", err)
	}
	h.refuse.Store(true)
	_, err = h.store(t.TempDir(), password("wrong-secret")).Fetch(ctx, mainRef)
	if err == nil || strings.Contains(err.Error(), "wrong-secret") || errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := h.store(t.TempDir(), password("right")).Fetch(ctx, mainRef); err != nil {
		t.Error(err)
	}
	h.server.Close()
	if _, err := s.Fetch(ctx, mainRef); !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("host down: %v", err)
	}
	for _, url := range []string{"https://u:hidden@host/x.git", "ssh://host/x.git", "https://u:hid%den@host"} {
		if _, err := gogit.Open(ctx, gogit.Options{Dir: t.TempDir(), URL: url}); err == nil || strings.Contains(err.Error(), "hid") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestForcedUpdateAndPins(t *testing.T) {
	h := newHost(t)
	healthy := h.commit("healthy", map[string]string{"a": "good"})
	s := h.store(t.TempDir())
	fetch(t, s)
	if err := s.Pin("shop", healthy); err != nil {
		t.Fatal(err)
	}
	h.git(h.work, "checkout", "-q", "--orphan", "fresh")
	h.git(h.work, "branch", "-D", "main")
	h.git(h.work, "branch", "-m", "main")
	fresh := h.commit("another history", map[string]string{"a": "other"})
	if got := fetch(t, s); got.ID != fresh {
		t.Fatalf("got %s", got.ID)
	}
	before := h.packs.Load()
	if read(t, s, fresh, "a") != "other" || read(t, s, healthy, "a") != "good" {
		t.Error("wrong content")
	}
	if h.packs.Load() != before {
		t.Error("the pinned commit was fetched again")
	}
	if err := s.Unpin("shop"); err != nil {
		t.Error(err)
	}
	if err := s.Pin("../escape", healthy); err == nil {
		t.Error("a pin outside of its folder")
	}
}

func TestManyPacksAreMadeAnew(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	s := h.store(dir, func(o *gogit.Options) { o.MaxPacks = 3 })
	for i := range 8 {
		id := h.commit("next", map[string]string{"a": fmt.Sprint(i)})
		if got := fetch(t, s); got.ID != id || read(t, s, id, "a") != fmt.Sprint(i) {
			t.Fatalf("%d: got %s", i, got.ID)
		}
	}
	generations, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(generations) > 2 {
		t.Errorf("%v, %v", generations, err)
	}
	for _, generation := range generations {
		packs, err := filepath.Glob(filepath.Join(generation, "objects", "pack", "*.pack"))
		if err != nil || len(packs) > 4 { // the first and three more
			t.Errorf("%s: %d packs, %v", generation, len(packs), err)
		}
	}
}

func TestBrokenStoreIsMadeAnew(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"a": "1"})
	dir := t.TempDir()
	fetch(t, h.store(dir))
	packs, err := filepath.Glob(filepath.Join(dir, "*", "objects", "pack", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	for _, pack := range packs {
		if err := os.Chmod(pack, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(pack, []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := h.store(dir)
	if got := fetch(t, s); got.ID != id || read(t, s, id, "a") != "1" {
		t.Errorf("got %s", got.ID)
	}
}

func TestWriteTreeAndCommitAreThoseOfGit(t *testing.T) {
	h := newHost(t)
	s := h.store(t.TempDir())
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test
	content := map[string]string{"k": "0"}
	h.commit("start", content)
	parent := fetch(t, s).ID
	for round := range 25 {
		files, changes := map[string]string{}, []gitsource.Change(nil)
		for range 1 + random.IntN(4) {
			name := []string{"a", "a.b", "a/b", "dir/x", "dir/y/z", "dir.z", "dir0", "k"}[random.IntN(8)]
			if _, there := content[name]; there && random.IntN(3) == 0 && name != "k" {
				files[name] = ""
				continue
			}
			if name == "a" && content["a/b"] != "" || name == "a/b" && content["a"] != "" || files["a"]+files["a/b"] != "" {
				continue
			}
			files[name] = fmt.Sprint("content ", round, random.IntN(10))
		}
		for name, text := range files {
			changes = append(changes, gitsource.Change{Path: name, Content: []byte(text), Delete: text == ""})
			if content[name] = text; text == "" {
				delete(content, name)
			}
		}
		want := h.commit("change", files)
		id := write(t, s, parent, changes...)
		got, err := s.CommitOf(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		if tree := h.git(h.work, "rev-parse", string(want)+"^{tree}"); string(got.Tree) != tree {
			t.Fatalf("round %d: tree %s, git says %s", round, got.Tree, tree)
		}
		parent = fetch(t, s).ID
	}
	tree := h.git(h.work, "rev-parse", "HEAD^{tree}")
	when := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", -5400))
	id, err := s.Commit(gitsource.NewCommit{
		Parents: []gitsource.ObjectID{parent}, Tree: gitsource.ObjectID(tree), Message: "Subject\n\nBody: ä",
		Author: gitsource.Person{Name: "Ä B", Email: "c@d", When: when}, Committer: person(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Push(context.Background(), "refs/heads/written", "", id); err != nil {
		t.Fatal(err)
	}
	if out := h.git(h.dir, "fsck", "--strict", "--full"); strings.Contains(out, "error") {
		t.Error(out)
	}
	if got := h.git(h.dir, "log", "-1", "--format=%an|%ae|%aI|%cn|%s|%b", string(id)); got != "Ä B|c@d|2026-03-04T05:06:07-01:30|A|Subject|Body: ä" {
		t.Errorf("got %s", got)
	}
}

func TestWriteTreeRefuses(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"file": "1", "dir/x": "1"})
	s := h.store(t.TempDir())
	fetch(t, s)
	for _, name := range []string{"../x", "/x", ".", "", "a/.git/config", ".GIT/x", "file/below", "dir", "a\x00"} {
		if _, err := s.WriteTree(id, []gitsource.Change{{Path: name, Content: []byte("x")}}); err == nil {
			t.Errorf("%q was written", name)
		}
	}
}

func TestPush(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	files := map[string]string{}
	for i := range 200 {
		files[fmt.Sprintf("many/%d/file", i)] = strings.Repeat(fmt.Sprint(i), 500)
	}
	h.commit("large", files)
	base := h.commit("tip", map[string]string{"a": "1"})
	one, two := h.store(t.TempDir()), h.store(t.TempDir())
	fetch(t, one)
	fetch(t, two)
	mine := write(t, one, base, gitsource.Change{Path: "many/7/file", Content: []byte("mine")})
	if err := one.Push(ctx, mainRef, base, mine); err != nil {
		t.Fatal(err)
	}
	if sent := h.sent.Load(); sent > 20_000 {
		t.Errorf("%d bytes were sent for one small file", sent)
	}
	other := write(t, two, base, gitsource.Change{Path: "b", Content: []byte("other")})
	if err := two.Push(ctx, mainRef, base, other); !errors.Is(err, gitsource.ErrMoved) {
		t.Errorf("lost race: %v", err)
	}
	if err := two.Push(ctx, mainRef, "", other); !errors.Is(err, gitsource.ErrMoved) {
		t.Errorf("must not exist: %v", err)
	}
	if got := fetch(t, two); got.ID != mine || read(t, two, mine, "many/7/file") != "mine" {
		t.Errorf("got %s", got.ID)
	}
	const branch = "refs/heads/promote/production/shop"
	request := write(t, two, mine, gitsource.Change{Path: "c", Content: []byte("request")})
	request = write(t, two, request, gitsource.Change{Path: "d", Content: []byte("request")})
	for range 2 {
		if err := two.Push(ctx, branch, "", request); err != nil {
			t.Fatal(err)
		}
		if err := two.Push(ctx, branch, request, ""); err != nil {
			t.Fatal(err)
		}
	}
	if refs, err := one.Refs(ctx); err != nil || len(refs) > 2 || refs[branch] != "" {
		t.Errorf("got %v, %v", refs, err)
	}
	h.lostOne.Store(true)
	lost := write(t, one, mine, gitsource.Change{Path: "e", Content: []byte("lost")})
	if err := one.Push(ctx, mainRef, mine, lost); !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("lost answer: %v", err)
	}
	if got := fetch(t, one); got.ID != lost {
		t.Errorf("after a lost answer the branch is at %s, want %s", got.ID, lost)
	}
	if out := h.git(h.dir, "fsck", "--strict", "--full"); strings.Contains(out, "error") || strings.Contains(out, "missing") {
		t.Error(out)
	}
}

// A host that lets nobody push to a branch says so for good, and for that branch alone.
func TestPushToAProtectedBranch(t *testing.T) {
	h := newHost(t)
	tip := h.commit("one", map[string]string{"a": "1"})
	hook := "#!/bin/sh\necho people merge here >&2\n[ \"$1\" != refs/heads/main ]\n"
	if err := os.WriteFile(filepath.Join(h.dir, "hooks", "update"), []byte(hook), 0o700); err != nil { //nolint:gosec // a hook must be executable
		t.Fatal(err)
	}
	s := h.store(t.TempDir())
	if _, err := s.Fetch(t.Context(), mainRef); err != nil {
		t.Fatal(err)
	}
	tree, err := s.WriteTree(tip, []gitsource.Change{{Path: "a", Content: []byte("2")}})
	if err != nil {
		t.Fatal(err)
	}
	who := gitsource.Person{Name: "A", Email: "a@b", When: h.clock}
	next, err := s.Commit(gitsource.NewCommit{Parents: []gitsource.ObjectID{tip}, Tree: tree, Message: "two", Author: who, Committer: who})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), mainRef, tip, next); !errors.Is(err, gitsource.ErrProtected) || !strings.Contains(err.Error(), "people merge here") {
		t.Errorf("push to main: %v", err)
	}
	if err := s.Push(t.Context(), "refs/heads/other", "", next); err != nil {
		t.Errorf("push beside it: %v", err)
	}
}

func TestHistory(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	for i := range 120 {
		h.commit(fmt.Sprint("main ", i), map[string]string{"m": fmt.Sprint(i)})
	}
	fork := gitsource.ObjectID(h.git(h.work, "rev-parse", "HEAD~70"))
	h.git(h.work, "checkout", "-q", "-b", "side", string(fork))
	for i := range 5 {
		h.commit(fmt.Sprint("side ", i), map[string]string{"s": fmt.Sprint(i)})
	}
	side := gitsource.ObjectID(h.git(h.work, "rev-parse", "HEAD"))
	h.git(h.work, "checkout", "-q", "main")
	tip := gitsource.ObjectID(h.git(h.work, "rev-parse", "HEAD"))
	s := h.store(t.TempDir())
	fetch(t, s)
	if base, err := s.MergeBase(ctx, tip, side); err != nil || base != fork {
		t.Errorf("merge base %s, %v, want %s", base, err, fork)
	}
	h.git(h.work, "merge", "-q", "--no-ff", "-m", "merge", "side")
	merge := h.commit("after the merge", nil)
	s = h.store(t.TempDir())
	fetch(t, s)
	for _, limit := range []int{1, 3, 60, 1000} {
		commits, err := s.Log(ctx, merge, limit)
		if err != nil {
			t.Fatal(err)
		}
		want := min(limit, 127)
		if len(commits) != want || commits[0].ID != merge {
			t.Errorf("limit %d: %d commits, first %s", limit, len(commits), commits[0].ID)
		}
		at := map[gitsource.ObjectID]int{}
		for i, commit := range commits {
			at[commit.ID] = i + 1
		}
		for i, commit := range commits {
			for _, parent := range commit.Parents {
				if at[parent] != 0 && at[parent] <= i {
					t.Errorf("limit %d: parent %s before its child", limit, parent.Short())
				}
			}
		}
	}
	if base, err := s.MergeBase(ctx, merge, side); err != nil || base != side {
		t.Errorf("merge base of an ancestor: %s, %v", base, err)
	}
}

func TestTree(t *testing.T) {
	h := newHost(t)
	for name, target := range map[string]string{
		"link": "dir/file", "dir/up": "../top", "dirlink": "dir", "loop": "loop", "out": "../../etc/passwd", "abs": "/etc/passwd", "dir/out": "../../x", "dangling": "nothing",
	} {
		full := filepath.Join(h.work, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, full); err != nil {
			t.Fatal(err)
		}
	}
	id := h.commit("links", map[string]string{"top": "top", "dir/file": "in dir", "dir/sub/x": "x"})
	s := h.store(t.TempDir())
	fetch(t, s)
	snapshot, err := s.SnapshotOf(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	tree := snapshot.Tree
	for name, want := range map[string]string{"top": "top", "link": "in dir", "dir/up": "top", "dirlink/up": "top", "dirlink/sub/x": "x"} {
		if got, err := tree.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"loop", "out", "abs", "dir/out", "dirlink/out", "../x", "dir/../top"} {
		if _, err := tree.ReadFile(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want an error that is not ErrNotExist", name, err)
		}
	}
	if _, err := tree.ReadFile("dangling"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dangling: %v", err)
	}
	if got, err := tree.ReadLink("out"); err != nil || got != "../../etc/passwd" {
		t.Errorf("readlink: %q, %v", got, err)
	}
	for name, want := range map[string]gitsource.EntryKind{"top": gitsource.File, "dir": gitsource.Directory, ".": gitsource.Directory, "link": gitsource.Symlink, "none": gitsource.Absent, "top/none": gitsource.Absent} {
		if got, err := tree.Entry(name); err != nil || got.Kind != want || (want == gitsource.File && got.Size != 3) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	plain := h.commit("no links", map[string]string{"link": "", "dir/up": "", "dirlink": "", "loop": "", "out": "", "abs": "", "dir/out": "", "dangling": ""})
	fetch(t, s)
	if snapshot, err = s.SnapshotOf(context.Background(), plain); err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(snapshot.Tree, "top", "dir/file", "dir/sub/x"); err != nil {
		t.Error(err)
	}
}

func TestReadersDuringFetches(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"a": "1", "d/b": "2"})
	s := h.store(t.TempDir(), func(o *gogit.Options) { o.MaxPacks = 3 })
	fetch(t, s)
	if err := s.Pin("one", id); err != nil {
		t.Fatal(err)
	}
	snapshot, err := s.SnapshotOf(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if got, err := snapshot.Tree.ReadFile("d/b"); err != nil || string(got) != "2" {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		})
	}
	for i := range 8 {
		h.commit("next", map[string]string{"a": fmt.Sprint(i)})
		fetch(t, s)
	}
	close(done)
	readers.Wait()
}
