package promoter_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
)

const slipwayYAML = `apiVersion: slipway.dev/v1alpha1
kind: Delivery
environments:
  - name: dev
    path: apps/{app}/dev
    promote: {by: commit}
  - name: production
    after: [dev]
    path: apps/{app}/production
    promote: {by: pullRequest}
`

var (
	ann  = gitsource.Person{Name: "Ann", Email: "ann@example.org"}
	noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func kustomization(c string) string {
	return "resources: [../base]\n# promoted images\nimages:\n- name: shop\n  newName: r.example/shop\n  digest: " + digest(c) + " # keep\n"
}

// world is an environment repo on a host, and one Promoter with a clone of it.
type world struct {
	*testing.T
	host string
	repo *clone
	now  time.Time
	*promoter.Promoter
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, host: newHost(t), now: noon}
	w.repo = newClone(t, w.host)
	w.Promoter = w.promoter(w.repo)
	w.write("Begin", map[string]string{
		"slipway.yaml":                            slipwayYAML,
		"README.md":                               "hello\n",
		"apps/shop/base/kustomization.yaml":       "resources: [deployment.yaml]\n",
		"apps/shop/dev/kustomization.yaml":        kustomization("a"),
		"apps/shop/production/kustomization.yaml": kustomization("a"),
	})
	return w
}

func (w *world) promoter(repo promoter.Repo) *promoter.Promoter {
	w.Helper()
	p, err := promoter.New(promoter.Options{
		Repo: repo, Tries: 8,
		Now:  func() time.Time { return w.now },
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// write is what others do: a commit on main, an empty content removes.
func (w *world) write(message string, files map[string]string) gitsource.ObjectID {
	w.Helper()
	return w.writeTo("refs/heads/main", message, files)
}

func (w *world) writeTo(ref, message string, files map[string]string) gitsource.ObjectID {
	w.Helper()
	c := newClone(w.T, w.host)
	var changes []gitsource.Change
	for path, content := range files {
		changes = append(changes, gitsource.Change{Path: path, Content: []byte(content), Delete: content == ""})
	}
	var parents []gitsource.ObjectID
	var old gitsource.ObjectID
	if revision, err := c.Fetch(context.Background(), ref); err == nil {
		old = revision.ID
		parents = append(parents, old)
	}
	treeID, err := c.WriteTree(old, changes)
	if err != nil {
		w.Fatal(err)
	}
	other := gitsource.Person{Name: "Bob", Email: "bob@example.org", When: w.now}
	id, err := c.Commit(gitsource.NewCommit{Parents: parents, Tree: treeID, Message: message, Author: other, Committer: other})
	if err != nil {
		w.Fatal(err)
	}
	if err := c.Push(context.Background(), ref, old, id); err != nil {
		w.Fatal(err)
	}
	return id
}

// read returns a file of a branch on the host, "" if it is not there.
func (w *world) read(branch, path string) string {
	out, err := run(context.Background(), w.host, nil, "", "show", branch+":"+path)
	if err != nil {
		return ""
	}
	return out + "\n"
}

func (w *world) commits(branch string) int {
	w.Helper()
	return len(strings.Split(git(w.T, w.host, "rev-list", branch), "\n"))
}

func (w *world) message(rev string) string {
	w.Helper()
	return git(w.T, w.host, "log", "-1", "--format=%B", rev)
}

func (w *world) tip(branch string) gitsource.ObjectID {
	out, err := run(context.Background(), w.host, nil, "", "rev-parse", "refs/heads/"+branch)
	if err != nil {
		return ""
	}
	return gitsource.ObjectID(out)
}

// must fails the test on an error.
func (w *world) must(result promoter.Result, err error) promoter.Result {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	return result
}
