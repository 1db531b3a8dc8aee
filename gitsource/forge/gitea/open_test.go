package gitea_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/gitea"
	"github.com/slipway-cd/slipway/policy"
)

// proposed opens a pull request for a new branch.
func (y *yard) proposed(branch string) forge.PullRequest {
	y.Helper()
	y.branch(branch)
	p, err := y.client.OpenRequest(y.Context(), forge.Request{Head: branch, Base: "main", Title: "Change " + branch})
	y.must(err)
	return p
}

func numbersOf(all []forge.PullRequest) (numbers []int64) {
	for _, p := range all {
		numbers = append(numbers, p.Number)
	}
	return numbers
}

// Whoever may only read can open pull requests: from a fork, and by a push to refs/for/main. Neither counts as the repository's own.
func TestAllOpenTellsWhoseTheyAre(t *testing.T) {
	t.Parallel()
	y := newYard(t, "open")
	ctx := t.Context()
	if all, err := y.client.AllOpen(ctx, "main"); err != nil || len(all) != 0 {
		t.Errorf("before: %v, %v", all, err)
	}
	own := y.proposed("own/work")
	var label struct{ ID int64 }
	y.must(y.host.Call(ctx, y.slipway, http.MethodPost, "repos/"+y.repo.Name+"/labels", map[string]string{"name": "preview", "color": "#00ff00"}, &label))
	y.must(y.host.Call(ctx, y.slipway, http.MethodPost, fmt.Sprintf("repos/%s/issues/%d/labels", y.repo.Name, own.Number), map[string][]int64{"labels": {label.ID}}, nil))
	closed := y.proposed("closed")
	if _, err := y.client.Close(ctx, closed.Number); err != nil {
		t.Fatal(err)
	}
	y.must(y.push(y.slipway, "main:release"))
	y.branch("elsewhere")
	_, err := y.client.OpenRequest(ctx, forge.Request{Head: "elsewhere", Base: "release", Title: "Elsewhere"})
	y.must(err)

	stranger, err := y.host.User(ctx, "stranger")
	y.must(err)
	y.must(y.host.Call(ctx, y.host.Admin, http.MethodPut, "repos/"+y.repo.Name+"/collaborators/stranger", map[string]any{"permission": "read"}, nil))
	y.must(y.host.Call(ctx, stranger, http.MethodPost, "repos/"+y.repo.Name+"/forks", map[string]string{"name": "forked"}, nil))
	y.git("checkout", "-q", "-B", "forked", "main")
	y.commit("From a fork")
	fork := y.repo
	fork.URL = y.host.URL + "/stranger/forked.git"
	y.eventually(func() bool { _, err := y.run("push", "-q", fork.CloneURL(stranger), "forked"); return err == nil })
	var ofFork struct{ Number int64 }
	y.must(y.host.Call(ctx, stranger, http.MethodPost, "repos/"+y.repo.Name+"/pulls", map[string]string{"head": "stranger:forked", "base": "main", "title": "From a fork"}, &ofFork))
	if err := y.push(stranger, "forked"); err == nil {
		t.Error("the stranger may push a branch")
	}
	// The name of a branch that there is makes it no better. The stranger's own name stands before it.
	y.branch("stranger/topic")
	y.git("checkout", "-q", "-B", "agit", "main")
	y.commit("By nobody's branch")
	if out, err := y.run("push", "-q", "-o", "title=By nobody's branch", y.repo.CloneURL(stranger), "agit:refs/for/main/topic"); err != nil {
		t.Fatalf("%v %s", err, out)
	}

	all, err := y.client.AllOpen(ctx, "main")
	y.must(err)
	for _, p := range all {
		if p.Own != (p.Number == own.Number) {
			t.Errorf("%+v", p)
		}
	}
	if len(all) != 3 || all[0].Number != own.Number || all[1].Number != ofFork.Number || all[2].Author != "stranger" {
		t.Fatalf("%+v", all)
	}
	if p := all[0]; p.Head != "own/work" || p.HeadCommit != own.HeadCommit || !slices.Equal(p.Labels, []string{"preview"}) || p.State != forge.Open || p.Updated.IsZero() || p.Author != "slipway" {
		t.Errorf("%+v", p)
	}
}

// slowly is a way to the host with pages of two; turn is called before each page.
func (y *yard) slowly(turn func(page string)) *gitea.Client {
	y.Helper()
	to, err := url.Parse(y.host.URL)
	y.must(err)
	way := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		query := r.Out.URL.Query()
		turn(query.Get("page"))
		query.Set("limit", "2")
		r.Out.URL.RawQuery = query.Encode()
	}})
	y.Cleanup(way.Close)
	token, err := y.host.Token(y.Context(), y.slipway, "read:repository")
	y.must(err)
	client, err := gitea.New(gitea.Options{URL: way.URL, Repo: y.repo.Name, User: "slipway", Token: policy.NewSecret(token)})
	y.must(err)
	return client
}

// One that ends while pages are read moves others across; none of those is lost, although there are as many as before.
func TestAllOpenWhileTheyChange(t *testing.T) {
	t.Parallel()
	y := newYard(t, "changing")
	var want []int64
	for i := range 5 {
		want = append(want, y.proposed(fmt.Sprintf("work-%d", i)).Number)
	}
	y.branch("late")
	var once sync.Once
	client := y.slowly(func(page string) {
		if page != "2" {
			return
		}
		once.Do(func() {
			_, err := y.client.Close(y.Context(), want[0])
			y.must(err)
			late, err := y.client.OpenRequest(y.Context(), forge.Request{Head: "late", Base: "main", Title: "Late"})
			y.must(err)
			want = append(want[1:], late.Number)
		})
	})
	all, err := client.AllOpen(t.Context(), "main")
	if got := numbersOf(all); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, want %v, %v", got, want, err)
	}
	if len(want) != 5 {
		t.Errorf("nothing changed: %v", want)
	}
}

func TestAllOpenOrAnError(t *testing.T) {
	t.Parallel()
	y := newYard(t, "limits")
	everybody, err := gitea.New(gitea.Options{URL: y.host.URL, Repo: y.repo.Name, Anonymous: true})
	y.must(err)
	if _, err := everybody.AllOpen(t.Context(), "main"); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("a private repository: %v", err)
	}
	if _, err := gitea.New(gitea.Options{URL: y.host.URL, Repo: y.repo.Name, Anonymous: true, User: "robin"}); err == nil {
		t.Error("somebody is nobody")
	}
	for _, c := range []struct {
		code   int
		header string
		after  time.Duration
	}{
		{429, "90", 90 * time.Second},
		{429, "", time.Minute},
		{503, "7", 7 * time.Second},
		{503, "", 0},
		{429, "99999999", time.Hour},
		{502, "9", 0},
		{429, time.Now().Add(time.Hour / 2).UTC().Format(http.TimeFormat), time.Hour / 2},
	} {
		busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.header)
			w.WriteHeader(c.code)
		}))
		client, err := gitea.New(gitea.Options{URL: busy.URL, Repo: "a/b", Anonymous: true})
		y.must(err)
		_, err = client.AllOpen(t.Context(), "main")
		busy.Close()
		var failed *forge.Error
		if !errors.As(err, &failed) || !failed.Temporary() || (failed.After-c.after).Abs() > 5*time.Second {
			t.Errorf("%d %q: %v, after %s", c.code, c.header, err, failed.After)
		}
	}
}
