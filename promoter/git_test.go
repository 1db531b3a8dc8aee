package promoter_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

// clone is a Repo over the git program: a bare repository of its own beside the host's.
type clone struct {
	dir, remote string
	// beforePush, if set, runs before each push: what a rival does meanwhile.
	beforePush func(ref string)
	// lostAnswer makes the next push arrive without its caller hearing of it.
	lostAnswer bool
	pushed     int
	trees      sync.Map // by commit
}

// host is a bare repository that refuses to be force-pushed.
func newHost(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is missing (apt-get install git)")
	}
	dir := filepath.Join(t.TempDir(), "host.git")
	git(t, ".", "init", "-q", "--bare", "-b", "main", dir)
	git(t, dir, "config", "receive.denyNonFastForwards", "true")
	return dir
}

func newClone(t *testing.T, host string) *clone {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone.git")
	git(t, ".", "init", "-q", "--bare", "-b", "main", dir)
	// The host's objects are read where they are: how they get here is not what these tests are about.
	if err := os.WriteFile(filepath.Join(dir, "objects/info/alternates"), []byte(filepath.Join(host, "objects")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return &clone{dir: dir, remote: host}
}

// at returns where ref is on the host; empty if it is not there.
func (c *clone) at(ctx context.Context, ref string) (gitsource.ObjectID, error) {
	out, err := run(ctx, c.remote, nil, "", "for-each-ref", "--format=%(objectname)", ref)
	if err != nil {
		return "", fmt.Errorf("%w: %w", gitsource.ErrUnreachable, err)
	}
	return gitsource.ObjectID(out), nil
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := run(context.Background(), dir, nil, "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func run(ctx context.Context, dir string, env []string, in string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(in)
	cmd.Env = append(os.Environ(), append(env, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func (c *clone) Fetch(ctx context.Context, ref string) (gitsource.Revision, error) {
	id, err := c.at(ctx, ref)
	if err != nil {
		return gitsource.Revision{}, err
	}
	if id == "" {
		return gitsource.Revision{}, fmt.Errorf("%s: %w", ref, gitsource.ErrNotFound)
	}
	return gitsource.Revision{URL: c.remote, Ref: ref, ID: id}, nil
}

func (c *clone) SnapshotOf(ctx context.Context, id gitsource.ObjectID) (gitsource.Snapshot, error) {
	cached, found := c.trees.Load(id)
	if !found {
		read, err := readTree(ctx, c.dir, string(id))
		if err != nil {
			return gitsource.Snapshot{}, err
		}
		cached, _ = c.trees.LoadOrStore(id, read)
	}
	return gitsource.Snapshot{Revision: gitsource.Revision{ID: id}, Tree: cached.(gitsource.Tree)}, nil
}

func (c *clone) CommitOf(ctx context.Context, id gitsource.ObjectID) (gitsource.Commit, error) {
	commits, err := c.Log(ctx, id, 1)
	if err != nil {
		return gitsource.Commit{}, err
	}
	return commits[0], nil
}

func (c *clone) Log(ctx context.Context, from gitsource.ObjectID, limit int) ([]gitsource.Commit, error) {
	out, err := run(ctx, c.dir, nil, "", "log", "-z", "--format=%H%n%T%n%P%n%an%n%ae%n%aI%n%cn%n%ce%n%cI%n%B", "-n", strconv.Itoa(limit), string(from))
	if err != nil {
		return nil, err
	}
	var commits []gitsource.Commit
	for _, text := range strings.Split(strings.TrimSuffix(out, "\x00"), "\x00") {
		f := strings.SplitN(text, "\n", 10)
		commit := gitsource.Commit{ID: gitsource.ObjectID(f[0]), Tree: gitsource.ObjectID(f[1]), Author: person(f[3:6]), Committer: person(f[6:9]), Message: f[9]}
		for _, p := range strings.Fields(f[2]) {
			commit.Parents = append(commit.Parents, gitsource.ObjectID(p))
		}
		commits = append(commits, commit)
	}
	return commits, nil
}

func person(f []string) gitsource.Person {
	when, err := time.Parse(time.RFC3339, f[2])
	if err != nil {
		panic(err)
	}
	return gitsource.Person{Name: f[0], Email: f[1], When: when}
}

func (c *clone) MergeBase(ctx context.Context, a, b gitsource.ObjectID) (gitsource.ObjectID, error) {
	out, err := run(ctx, c.dir, nil, "", "merge-base", string(a), string(b))
	if err != nil {
		return "", fmt.Errorf("%w: %w", gitsource.ErrNotFound, err)
	}
	return gitsource.ObjectID(out), nil
}

func (c *clone) WriteTree(base gitsource.ObjectID, changes []gitsource.Change) (gitsource.ObjectID, error) {
	ctx := context.Background()
	index, err := os.CreateTemp("", "index")
	if err != nil {
		return "", err
	}
	env := []string{"GIT_INDEX_FILE=" + index.Name() + ".git"}
	defer os.Remove(index.Name())
	defer os.Remove(index.Name() + ".git")
	if base != "" {
		if _, err := run(ctx, c.dir, env, "", "read-tree", string(base)); err != nil {
			return "", err
		}
	}
	for _, change := range changes {
		if change.Delete {
			_, err = run(ctx, c.dir, env, "0 "+strings.Repeat("0", 40)+"\t"+change.Path+"\n", "update-index", "--index-info")
		} else {
			var blob string
			if blob, err = run(ctx, c.dir, env, string(change.Content), "hash-object", "-w", "--stdin"); err == nil {
				_, err = run(ctx, c.dir, env, "", "update-index", "--add", "--cacheinfo", "100644,"+blob+","+change.Path)
			}
		}
		if err != nil {
			return "", err
		}
	}
	out, err := run(ctx, c.dir, env, "", "write-tree")
	return gitsource.ObjectID(out), err
}

func (c *clone) Commit(n gitsource.NewCommit) (gitsource.ObjectID, error) {
	args := []string{"commit-tree", string(n.Tree)}
	for _, p := range n.Parents {
		args = append(args, "-p", string(p))
	}
	out, err := run(context.Background(), c.dir, []string{
		"GIT_AUTHOR_NAME=" + n.Author.Name, "GIT_AUTHOR_EMAIL=" + n.Author.Email, "GIT_AUTHOR_DATE=" + n.Author.When.Format(time.RFC3339),
		"GIT_COMMITTER_NAME=" + n.Committer.Name, "GIT_COMMITTER_EMAIL=" + n.Committer.Email, "GIT_COMMITTER_DATE=" + n.Committer.When.Format(time.RFC3339),
	}, n.Message, args...)
	return gitsource.ObjectID(out), err
}

func (c *clone) Push(ctx context.Context, ref string, old, new gitsource.ObjectID) error {
	if c.beforePush != nil {
		c.beforePush(ref)
	}
	now, err := c.at(ctx, ref)
	if err != nil {
		return err
	}
	if now != old {
		return fmt.Errorf("%s is at %q: %w", ref, now, gitsource.ErrMoved)
	}
	_, err = run(ctx, c.dir, nil, "", "push", "-q", "--force-with-lease="+ref+":"+string(old), c.remote, string(new)+":"+ref)
	if err == nil {
		c.pushed++
		if c.lostAnswer {
			c.lostAnswer = false
			return fmt.Errorf("%s: no answer: %w", ref, gitsource.ErrUnreachable)
		}
		return nil
	}
	if after, lsErr := c.at(ctx, ref); lsErr == nil && after != now {
		return fmt.Errorf("%w: %w", gitsource.ErrMoved, err)
	}
	if strings.Contains(err.Error(), "hook declined") {
		return fmt.Errorf("%w: %w", gitsource.ErrProtected, err)
	}
	return err
}

// protect makes the host refuse pushes to main, as a protected branch does.
func protect(t *testing.T, host string) {
	t.Helper()
	const hook = "#!/bin/sh\n[ \"$1\" != refs/heads/main ]\n"
	if err := os.WriteFile(filepath.Join(host, "hooks", "update"), []byte(hook), 0o700); err != nil { //nolint:gosec // a hook must be executable
		t.Fatal(err)
	}
}

// tree holds a whole commit in memory: the repositories of tests are small.
type tree struct {
	fstest.MapFS
	entries map[string]gitsource.Entry
}

func readTree(ctx context.Context, dir, commit string) (gitsource.Tree, error) {
	t := tree{MapFS: fstest.MapFS{}, entries: map[string]gitsource.Entry{}}
	out, err := run(ctx, dir, nil, "", "ls-tree", "-r", "-t", "-z", commit)
	if err != nil {
		return nil, err
	}
	t.entries["."] = gitsource.Entry{Kind: gitsource.Directory, ID: gitsource.ObjectID(commit)}
	var paths []string
	var ids strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(out, "\x00"), "\x00") {
		meta, path, _ := strings.Cut(line, "\t")
		f := strings.Fields(meta)
		kind := map[string]gitsource.EntryKind{"040000": gitsource.Directory, "100644": gitsource.File, "120000": gitsource.Symlink}[f[0]]
		t.entries[path] = gitsource.Entry{Kind: kind, ID: gitsource.ObjectID(f[2])}
		if kind == gitsource.File {
			paths = append(paths, path)
			ids.WriteString(f[2] + "\n")
		}
	}
	blobs, err := run(ctx, dir, nil, ids.String(), "cat-file", "--batch=%(objectsize)")
	if err != nil {
		return nil, err
	}
	blobs += "\n"
	for _, path := range paths {
		size, rest, _ := strings.Cut(blobs, "\n")
		n, err := strconv.Atoi(size)
		if err != nil {
			return nil, err
		}
		t.MapFS[path] = &fstest.MapFile{Data: []byte(rest[:n]), Mode: 0o644}
		entry := t.entries[path]
		entry.Size = int64(n)
		t.entries[path] = entry
		blobs = rest[n+1:]
	}
	return t, nil
}

func (t tree) Entry(path string) (gitsource.Entry, error) { return t.entries[path], nil }

func (t tree) ReadLink(path string) (string, error) {
	return "", &fs.PathError{Op: "readlink", Path: path, Err: fs.ErrInvalid}
}
