package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

// Person writes the commits that Commit makes.
func Person() gitsource.Person {
	return gitsource.Person{Name: "Robin Marsh", Email: "robin@shop.example", When: time.Now()}
}

// Repository is a repository of the Git host, as a person's clone. Its branch is Branch.
type Repository struct {
	URL   string
	Store *gogit.Store
	Dir   string // the bare repository on the World's own host
}

// repository makes an empty repository on the host and a clone of it, unless they are there.
func (w *World) repository(ctx context.Context, name string) (*Repository, error) {
	if err := w.host.Create(ctx, name); err != nil {
		return nil, err
	}
	r := &Repository{URL: "http://" + w.address + "/" + name + ".git", Dir: filepath.Join(w.Dir, "git", name+".git")}
	var err error
	r.Store, err = gogit.Open(ctx, gogit.Options{Dir: filepath.Join(w.Dir, "person", name), URL: r.URL, Auth: personAuth()})
	return r, err
}

// Clone opens a repository of another host as a person's clone.
func (w *World) Clone(ctx context.Context, name, url string, login *gogit.Auth) (*Repository, error) {
	store, err := gogit.Open(ctx, gogit.Options{Dir: filepath.Join(w.Dir, "person", "elsewhere", name), URL: url, Auth: login})
	return &Repository{URL: url, Store: store}, err
}

// Follow makes a repository of another host the environment repo. The agent will read it with the Secret of that name, which
// is made after Install; empty for none.
func (w *World) Follow(r *Repository, secret string) {
	w.environments, w.URL, w.Repo, w.secret = r, r.URL, r.Store, secret
}

// Tip is where the branch is.
func (r *Repository) Tip(ctx context.Context) (gitsource.ObjectID, error) {
	revision, err := r.Store.Fetch(ctx, "refs/heads/"+Branch)
	return revision.ID, err
}

// Commit pushes one commit with changes to the branch, computed again after a lost race.
func (r *Repository) Commit(ctx context.Context, message string, changes ...gitsource.Change) (gitsource.ObjectID, error) {
	for {
		tip, err := r.Tip(ctx)
		if err != nil && !errors.Is(err, gitsource.ErrNotFound) {
			return "", err
		}
		id, err := r.CommitOn(ctx, tip, message, changes...)
		if err != nil {
			return "", err
		}
		if err = r.Store.Push(ctx, "refs/heads/"+Branch, tip, id); !errors.Is(err, gitsource.ErrMoved) {
			return id, err
		}
	}
}

// CommitOn makes a commit on a parent, which may be empty, and pushes nothing.
func (r *Repository) CommitOn(_ context.Context, parent gitsource.ObjectID, message string, changes ...gitsource.Change) (gitsource.ObjectID, error) {
	tree, err := r.Store.WriteTree(parent, changes)
	if err != nil {
		return "", err
	}
	commit := gitsource.NewCommit{Tree: tree, Message: message, Author: Person(), Committer: Person()}
	if parent != "" {
		commit.Parents = []gitsource.ObjectID{parent}
	}
	return r.Store.Commit(commit)
}

// Tip is where the followed branch of the environment repo is.
func (w *World) Tip(ctx context.Context) (gitsource.ObjectID, error) { return w.environments.Tip(ctx) }

// Commit pushes one commit with changes to the environment repo.
func (w *World) Commit(ctx context.Context, message string, changes ...gitsource.Change) (gitsource.ObjectID, error) {
	return w.environments.Commit(ctx, message, changes...)
}

// CommitOn makes a commit for the environment repo on a parent, which may be empty, and pushes nothing.
func (w *World) CommitOn(ctx context.Context, parent gitsource.ObjectID, message string, changes ...gitsource.Change) (gitsource.ObjectID, error) {
	return w.environments.CommitOn(ctx, parent, message, changes...)
}

// Source makes a repository on the host for sources that are built.
func (w *World) Source(ctx context.Context, name string) (*Repository, error) {
	return w.repository(ctx, name)
}

// Write is the change that sets one file.
func Write(path, content string) gitsource.Change {
	return gitsource.Change{Path: path, Content: []byte(content)}
}

// Remove is the change that removes one file.
func Remove(path string) gitsource.Change { return gitsource.Change{Path: path, Delete: true} }

// Folder returns the changes that write all files below dir, with words in their content replaced.
func Folder(dir string, words map[string]string) ([]gitsource.Change, error) {
	var changes []gitsource.Change
	tree := os.DirFS(dir)
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		for word, by := range words {
			content = bytes.ReplaceAll(content, []byte(word), []byte(by))
		}
		changes = append(changes, gitsource.Change{Path: path.Clean(name), Content: content})
		return nil
	})
	return changes, err
}

// Log returns the newest commits of the followed branch, newest first.
func (w *World) Log(ctx context.Context, limit int) ([]gitsource.Commit, error) {
	tip, err := w.Tip(ctx)
	if err != nil {
		return nil, err
	}
	return w.Repo.Log(ctx, tip, limit)
}

// File reads a file at the tip.
func (w *World) File(ctx context.Context, name string) (string, error) {
	tip, err := w.Tip(ctx)
	if err != nil {
		return "", err
	}
	snapshot, err := w.Repo.SnapshotOf(ctx, tip)
	if err != nil {
		return "", err
	}
	content, err := snapshot.Tree.ReadFile(name)
	return string(content), err
}

// Branches lists the branches on the host, without refs/heads/, sorted.
func (w *World) Branches(ctx context.Context) ([]string, error) {
	refs, err := w.Repo.Refs(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for ref := range refs {
		if name, found := strings.CutPrefix(ref, "refs/heads/"); found {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Count returns how many of the newest commits satisfy is.
func (w *World) Count(ctx context.Context, limit int, is func(gitsource.Commit) bool) (int, error) {
	commits, err := w.Log(ctx, limit)
	if err != nil {
		return 0, fmt.Errorf("count of commits: %w", err)
	}
	n := 0
	for _, commit := range commits {
		if is(commit) {
			n++
		}
	}
	return n, nil
}
