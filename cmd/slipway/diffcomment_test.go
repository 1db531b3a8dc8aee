package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/e2e/gitea"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/policy"
)

func TestDiffComment(t *testing.T) {
	diffs := []applicationDiff{
		{Application: "shop-dev", Differences: []wire.Difference{}},
		{Application: "shop-production", Held: "would delete 12 of 13 objects", Differences: []wire.Difference{
			{Object: "ConfigMap shop/settings", Verb: "change", Fields: []string{"data.text: \"a ``` b\n@team closes #1\" -> \"\x1b[31m</details>\""}},
			{Object: "batch/Job shop/migrate", Verb: "refuse", Error: "field is immutable"},
			{Object: "Namespace shop", Verb: "keep", Note: "left Git; Namespace is kept"},
		}},
		{Application: "broken", Error: "apps/broken/a.yaml:1: not valid YAML"},
	}
	text := diffComment("production-eu", "0123456789abcdef0123456789abcdef01234567", diffs)
	golden(t, "output/diff.comment", text)
	// Nothing that others wrote stands outside of the one block of code.
	parts := strings.Split(text, "````")
	if len(parts) != 3 || strings.Contains(parts[0]+parts[2], "team") {
		t.Errorf("%d parts:\n%s", len(parts), text)
	}
	if text := diffComment("a_b*<c>", "0123", nil); !strings.Contains(text, "in a-b--c-\n") || !strings.Contains(text, "no Application is touched") {
		t.Errorf("of nothing: %s", text)
	}
}

func TestDiffCommentIsBounded(t *testing.T) {
	var many []wire.Difference
	for i := range 500 {
		many = append(many, wire.Difference{Object: fmt.Sprintf("ConfigMap shop/%d", i), Verb: "change", Fields: []string{strings.Repeat("`", 5000), strings.Repeat("ü", 600)}})
	}
	text := diffComment("eu", "0123", []applicationDiff{{Application: "shop", Differences: many}})
	if len(text) > maxComment || !strings.Contains(text, "more lines") || !strings.Contains(text, "shop: 500 to change") {
		t.Errorf("%d bytes: %.300s", len(text), text)
	}
	if strings.ToValidUTF8(text, "") != text {
		t.Error("a letter was cut in two")
	}
}

func TestDiffFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"--ref":               {"--comment", "--host", "gitea", "--cluster", "eu"},
		"SLIPWAY_HOST":        {"--comment", "--ref", "x", "--cluster", "eu"},
		"--cluster":           {"--comment", "--ref", "x", "--host", "gitea"},
		"clusters/":           {"--comment", "--ref", "x", "--host", "gitea", "--cluster", "a -->"},
		"one --context":       {"--comment", "--ref", "x", "--host", "gitea", "--cluster", "eu", "--context", "a", "--context", "b"},
		"give --comment, too": {"--cluster", "eu"},
	} {
		if code, _, said := command(t, nil, append([]string{"diff", "--repo", "/nowhere"}, args...)...); code != exitUsage || !strings.Contains(said, want) {
			t.Errorf("%v: exit code %d, want %q: %s", args, code, want, said)
		}
	}
}

// hosted is an environment repo on a real Gitea.
type hosted struct {
	*deck
	host  *gitea.Host
	user  gitea.User
	repo  gitea.Repository
	store *gogit.Store
}

func (h *hosted) commit(ref string, parent gitsource.ObjectID, changes ...gitsource.Change) gitsource.ObjectID {
	h.Helper()
	tree, err := h.store.WriteTree(parent, changes)
	h.must(err)
	commit := gitsource.NewCommit{Tree: tree, Message: "Change\n", Author: world.Person(), Committer: world.Person()}
	var from gitsource.ObjectID
	if parent != "" {
		commit.Parents = []gitsource.ObjectID{parent}
	}
	if refs, err := h.store.Refs(h.Context()); err == nil {
		from = refs[ref]
	}
	id, err := h.store.Commit(commit)
	h.must(err)
	h.must(h.store.Push(h.Context(), ref, from, id))
	return id
}

func (h *hosted) call(method, path string, in, out any) error {
	return h.host.Call(h.Context(), h.user, method, "repos/"+h.repo.Name+"/"+path, in, out)
}

// The pull request has one comment for each cluster, which says what its newest commit changes, and the commit has a status.
func TestDiffOnAPullRequest(t *testing.T) {
	host, err := gitea.Start(t.Context(), gitea.Options{Dir: t.TempDir(), Log: t.Output()}) // first, as the cluster
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Kill)
	h := &hosted{deck: newDeck(t), host: host}
	h.application("commented", "", map[string]string{"production/settings.yaml": settings})
	h.must(host.Org(t.Context(), "fleet"))
	h.user, err = host.User(t.Context(), "slipway")
	h.must(err)
	h.repo, err = host.Repository(t.Context(), "fleet", "environments", h.user)
	h.must(err)
	h.env = map[string]string{"SLIPWAY_GIT_USERNAME": h.user.Name, "SLIPWAY_GIT_PASSWORD": h.user.Token}
	h.store, err = wire.OpenRepository(t.Context(), h.repo.URL, h.user.Name, policy.NewSecret(h.user.Token), t.TempDir())
	h.must(err)
	const file = "apps/commented/production/settings.yaml"
	start := h.commit("refs/heads/main", "", world.Write(file, settings))
	first := h.commit("refs/heads/louder", start, world.Write(file, strings.Replace(settings, "info", "debug", 1)))
	var pull struct{ Number int64 }
	h.eventually(func() error {
		return h.call(http.MethodPost, "pulls", map[string]string{"head": "louder", "base": "main", "title": "Say more"}, &pull)
	})
	said := func(want string, args ...string) {
		t.Helper()
		code, out, complaint := command(t, h.env, append([]string{"diff", "commented", "--repo", h.repo.URL, "--kubeconfig", h.Cluster.Kubeconfig(), "--comment"}, args...)...)
		if code != exitNo && code != exitFailed {
			t.Fatalf("%v: exit code %d: %s%s", args, code, out, complaint)
		}
		h.says(out+complaint, want)
	}
	said("1 to change", "--ref", "louder", "--host", "gitea", "--cluster", "eu")
	said("1 to change", "--ref", fmt.Sprintf("refs/pull/%d/head", pull.Number), "--host", "gitea", "--cluster", "us")
	second := h.commit("refs/heads/louder", first, world.Write(file, "kind: ["))
	said("could not be compared", "--ref", "louder", "--host", "gitea", "--cluster", "eu")

	var comments []struct{ Body string }
	h.must(h.call(http.MethodGet, fmt.Sprintf("issues/%d/comments", pull.Number), nil, &comments))
	if len(comments) != 2 {
		t.Fatalf("%d comments: %+v", len(comments), comments)
	}
	h.says(comments[0].Body, "in eu", second.Short(), "settings.yaml:1")
	h.says(comments[1].Body, "in us", first.Short(), `data.level: "info" -> "debug"`)
	for commit, want := range map[gitsource.ObjectID]string{first: "success", second: "failure"} {
		var statuses []struct{ Status, Context, Description string }
		h.must(h.call(http.MethodGet, "commits/"+string(commit)+"/statuses", nil, &statuses))
		at := slices.IndexFunc(statuses, func(s struct{ Status, Context, Description string }) bool { return s.Context == "slipway/diff/eu" })
		if at < 0 || statuses[at].Status != want {
			t.Errorf("statuses of %s: %+v, want %s", commit.Short(), statuses, want)
		}
	}
	if code, _, complaint := command(t, h.env, "diff", "commented", "--repo", h.repo.URL, "--kubeconfig", h.Cluster.Kubeconfig(),
		"--comment", "--ref", "main", "--host", "gitea", "--cluster", "eu"); code != exitFailed || !strings.Contains(complaint, "no open pull request") {
		t.Errorf("a branch without a request: exit code %d: %s", code, complaint)
	}
}
