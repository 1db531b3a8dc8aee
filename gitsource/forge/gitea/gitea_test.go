package gitea_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	host "github.com/slipway-cd/slipway/e2e/gitea"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/gitea"
	"github.com/slipway-cd/slipway/policy"
)

// shared is one host for all tests of the package, which make repositories of their own on it.
var shared struct {
	sync.Once
	*host.Host
	dir string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.Host != nil {
		shared.Kill()
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// yard is a repository of the organization fleet with a branch main, slipway who may write, and robin who reviews.
type yard struct {
	testing.TB
	host           *host.Host
	slipway, robin host.User
	repo           host.Repository
	client         *gitea.Client
	work           string
}

func newYard(t *testing.T, name string) *yard {
	t.Helper()
	shared.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "slipway-gitea-"); shared.err == nil {
			shared.Host, shared.err = host.Start(context.WithoutCancel(t.Context()), host.Options{Dir: shared.dir, Log: os.Stderr})
		}
		if shared.err == nil {
			shared.err = shared.Org(t.Context(), "fleet")
		}
	})
	y := &yard{TB: t, host: shared.Host, work: t.TempDir()}
	y.must(shared.err)
	var err error
	y.slipway, err = y.host.User(t.Context(), "slipway")
	y.must(err)
	y.robin, err = y.host.User(t.Context(), "robin")
	y.must(err)
	y.repo, err = y.host.Repository(t.Context(), "fleet", name, y.slipway, y.robin)
	y.must(err)
	y.git("init", "-q", "-b", "main")
	y.commit("Begin")
	y.must(y.push(y.slipway, "main"))
	y.eventually(func() bool { // the host finds out by and by; an empty repository has no pull requests
		var shown struct{ Empty bool }
		y.must(y.host.Call(t.Context(), y.slipway, http.MethodGet, "repos/"+y.repo.Name, nil, &shown))
		return !shown.Empty
	})
	token, err := y.host.Token(t.Context(), y.slipway, "write:repository", "write:issue")
	y.must(err)
	y.client, err = gitea.New(gitea.Options{URL: y.host.URL, Repo: y.repo.Name, User: "slipway", Token: policy.NewSecret(token)})
	y.must(err)
	return y
}

func (y *yard) must(err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

func (y *yard) run(args ...string) (string, error) {
	cmd := exec.CommandContext(y.Context(), "git", append([]string{"-C", y.work, "-c", "user.name=Robin", "-c", "user.email=robin@example.com"}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (y *yard) git(args ...string) string {
	y.Helper()
	out, err := y.run(args...)
	if err != nil {
		y.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

// commit writes a file named after the message.
func (y *yard) commit(message string) gitsource.ObjectID {
	y.Helper()
	y.must(os.WriteFile(filepath.Join(y.work, strings.ReplaceAll(message, " ", "-")), []byte(message), 0o644))
	y.git("add", ".")
	y.git("commit", "-q", "-m", message)
	return gitsource.ObjectID(y.git("rev-parse", "HEAD"))
}

func (y *yard) push(as host.User, refs ...string) error {
	out, err := y.run(append([]string{"push", "-q", y.repo.CloneURL(as)}, refs...)...)
	if err != nil {
		return fmt.Errorf("push: %w: %s", err, out)
	}
	return nil
}

// branch pushes a branch with one commit.
func (y *yard) branch(name string) gitsource.ObjectID {
	y.Helper()
	y.git("checkout", "-q", "-B", name, "main")
	id := y.commit("Change of " + strings.ReplaceAll(name, "/", " "))
	y.must(y.push(y.slipway, name))
	return id
}

// merge insists while the host still looks for conflicts, and no longer when the error is not want.
func (y *yard) merge(number int64, head gitsource.ObjectID) (forge.PullRequest, error) {
	y.Helper()
	var merged forge.PullRequest
	var err error
	y.eventually(func() bool {
		merged, err = y.client.Merge(y.Context(), number, head, forge.MergeSquash)
		return err == nil || !strings.Contains(err.Error(), "try again later")
	})
	return merged, err
}

func (y *yard) eventually(done func() bool) {
	y.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			y.Fatal("it did not come about in 20 s")
		case <-tick.C:
		}
	}
}

func TestPullRequest(t *testing.T) {
	t.Parallel()
	y := newYard(t, "pull-request")
	ctx := t.Context()
	const head = "promote/shop-production"
	if _, err := y.client.Find(ctx, head, "main"); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	commit := y.branch(head)
	request := forge.Request{Head: head, Base: "main", Title: "Promote shop", Body: "| image |\n|---|\n| `shop@sha256:1` |"}
	opened, err := y.client.OpenRequest(ctx, request)
	y.must(err)
	if opened.State != forge.Open || opened.Head != head || opened.Base != "main" || opened.HeadCommit != commit || opened.Author != "slipway" ||
		opened.Title != request.Title || opened.Body != request.Body || opened.MergeCommit != "" || !strings.HasPrefix(opened.URL, y.host.URL) {
		t.Errorf("%+v", opened)
	}
	again, err := y.client.OpenRequest(ctx, request)
	y.must(err)
	request.Title, request.Body = "Promote shop to version 2", "Other words"
	changed, err := y.client.OpenRequest(ctx, request)
	y.must(err)
	found, err := y.client.Find(ctx, head, "main")
	y.must(err)
	if again.Number != opened.Number || changed.Number != opened.Number || found.Number != opened.Number || found.Title != request.Title || found.Body != request.Body {
		t.Errorf("again %+v\nchanged %+v\nfound %+v", again, changed, found)
	}
	if _, err := y.client.Merge(ctx, opened.Number, gitsource.ObjectID(strings.Repeat("1", 40)), forge.MergeSquash); !errors.Is(err, forge.ErrBlocked) {
		t.Errorf("merged at another commit: %v", err)
	}
	merged, err := y.merge(opened.Number, commit)
	y.must(err)
	once, err := y.client.Merge(ctx, opened.Number, commit, forge.MergeSquash)
	y.must(err)
	y.git("fetch", "-q", y.repo.CloneURL(y.robin), "main")
	if tip := y.git("rev-parse", "FETCH_HEAD"); merged.State != forge.Merged || string(merged.MergeCommit) != tip || merged.MergedBy != "slipway" || once.MergeCommit != merged.MergeCommit {
		t.Errorf("merged %+v, again %+v, main is at %s", merged, once, tip)
	}
	if _, err := y.client.Close(ctx, opened.Number); !errors.Is(err, forge.ErrBlocked) {
		t.Errorf("closed after the merge: %v", err)
	}
	y.git("branch", "-f", "main", "FETCH_HEAD")
	y.git("checkout", "-q", "-B", head, "main")
	y.commit("Third")
	y.must(y.push(y.slipway, "+"+head))
	next, err := y.client.OpenRequest(ctx, request)
	y.must(err)
	for range 2 {
		closed, err := y.client.Close(ctx, next.Number)
		y.must(err)
		if closed.State != forge.Closed || next.Number == opened.Number {
			t.Errorf("%+v", closed)
		}
	}
	if found, err := y.client.Find(ctx, head, "main"); err != nil || found.Number != next.Number {
		t.Errorf("the last that ended: %+v, %v", found, err)
	}
}

// Two servers that open the same request at the same time make one.
func TestOpenedAtTheSameTime(t *testing.T) {
	t.Parallel()
	y := newYard(t, "same-time")
	y.branch("promote/a")
	var group sync.WaitGroup
	numbers := make([]int64, 4)
	for i := range numbers {
		group.Go(func() {
			var p forge.PullRequest
			var err error
			for range 20 { // a loop tries again what may pass
				p, err = y.client.OpenRequest(t.Context(), forge.Request{Head: "promote/a", Base: "main", Title: "Promote a"})
				var failed *forge.Error
				if !errors.As(err, &failed) || !failed.Temporary() {
					break
				}
			}
			if err != nil {
				t.Error(err)
			}
			numbers[i] = p.Number
		})
	}
	group.Wait()
	var open []struct{ Number int64 }
	y.must(y.host.Call(t.Context(), y.robin, http.MethodGet, "repos/"+y.repo.Name+"/pulls?state=open", nil, &open))
	for _, n := range numbers {
		if len(open) != 1 || n != open[0].Number {
			t.Errorf("told of %v, open are %v", numbers, open)
		}
	}
}

func TestComments(t *testing.T) {
	t.Parallel()
	y := newYard(t, "comments")
	ctx := t.Context()
	y.branch("promote/a")
	p, err := y.client.OpenRequest(ctx, forge.Request{Head: "promote/a", Base: "main", Title: "Promote a"})
	y.must(err)
	path := fmt.Sprintf("repos/%s/issues/%d/comments", y.repo.Name, p.Number)
	// Somebody else's comment with our mark neither silences us nor is changed.
	y.must(y.host.Call(ctx, y.robin, http.MethodPost, path, map[string]string{"body": "Mine\n\n<!-- slipway:verdict -->"}, nil))
	for _, text := range []string{"Version 2 failed", "Version 2 failed", "Version 2 failed, reverted by 123"} {
		y.must(y.client.Comment(ctx, p.Number, "verdict", text))
	}
	y.must(y.client.Comment(ctx, p.Number, "other", "Another thing"))
	var all []struct{ Body string }
	y.must(y.host.Call(ctx, y.robin, http.MethodGet, path, nil, &all))
	if len(all) != 3 || !strings.HasPrefix(all[0].Body, "Mine") || !strings.HasPrefix(all[1].Body, "Version 2 failed, reverted by 123\n") || !strings.HasPrefix(all[2].Body, "Another") {
		t.Errorf("%q", all)
	}
	if err := y.client.Comment(ctx, p.Number, "a-->b", "x"); err == nil {
		t.Error("a key that shows is taken")
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	y := newYard(t, "statuses")
	ctx := t.Context()
	commit := y.branch("work")
	build := forge.Status{State: forge.Pending, Context: "slipway/build", Description: "runs", URL: "https://slipway.example.com/runs/1"}
	for _, state := range []forge.StatusState{forge.Pending, forge.Pending, forge.Failure, forge.Errored, forge.Success} {
		build.State = state
		y.must(y.client.Status(ctx, commit, build))
	}
	y.must(y.client.Status(ctx, commit, forge.Status{State: forge.Failure, Context: "slipway/test", Description: strings.Repeat("ä", 300)}))
	got, err := y.client.Statuses(ctx, commit)
	y.must(err)
	if len(got) != 2 || got[0] != build || got[1].State != forge.Failure || len([]rune(got[1].Description)) != 140 {
		t.Errorf("%+v", got)
	}
	var all []any
	y.must(y.host.Call(ctx, y.robin, http.MethodGet, fmt.Sprintf("repos/%s/commits/%s/statuses", y.repo.Name, commit), nil, &all))
	if len(all) != 5 {
		t.Errorf("%d statuses are on the host: the second pending one should not be", len(all))
	}
	if err := y.client.Status(ctx, commit, forge.Status{Context: "x"}); err == nil {
		t.Error("no state is a state")
	}
	if err := y.client.Status(ctx, "../../../user", build); err == nil {
		t.Error("a path is a commit")
	}
}

func TestProtectedBranch(t *testing.T) {
	t.Parallel()
	y := newYard(t, "protected")
	ctx := t.Context()
	y.must(y.host.Protect(ctx, y.repo, host.Protection{Branch: "main", Approvals: 1, Contexts: []string{"slipway/promotion"}}))
	y.commit("Straight to main")
	for _, who := range []host.User{y.slipway, y.host.Admin} {
		if err := y.push(who, "main"); err == nil || !strings.Contains(err.Error(), "protected branch") {
			t.Errorf("%s pushes to the protected branch: %v", who.Name, err)
		}
	}
	y.git("reset", "-q", "--hard", "HEAD~1")
	head := y.branch("promote/a")
	p, err := y.client.OpenRequest(ctx, forge.Request{Head: "promote/a", Base: "main", Title: "Promote a"})
	y.must(err)
	blocked := func(when string) {
		t.Helper()
		if _, err := y.merge(p.Number, head); !errors.Is(err, forge.ErrBlocked) {
			t.Errorf("merge %s: %v", when, err)
		}
	}
	blocked("without anything")
	y.must(y.client.Status(ctx, head, forge.Status{State: forge.Success, Context: "slipway/promotion"}))
	blocked("without an approval")
	var refused *host.Refused
	if err := y.host.Review(ctx, y.slipway, y.repo, p.Number, "APPROVED", "I like mine"); !errors.As(err, &refused) || refused.Code != http.StatusUnprocessableEntity {
		t.Errorf("its own author approves: %v", err)
	}
	y.must(y.host.Review(ctx, y.robin, y.repo, p.Number, "APPROVED", "Go"))
	head = y.commit("One more change")
	y.must(y.push(y.slipway, "promote/a"))
	y.eventually(func() bool {
		reviews, err := y.client.Reviews(ctx, p.Number)
		y.must(err)
		return len(reviews) == 1 && !reviews[0].Stands
	})
	y.must(y.client.Status(ctx, head, forge.Status{State: forge.Failure, Context: "slipway/promotion"}))
	y.must(y.host.Review(ctx, y.robin, y.repo, p.Number, "APPROVED", "Go again"))
	blocked("with a failed status")
	y.must(y.client.Status(ctx, head, forge.Status{State: forge.Success, Context: "slipway/promotion"}))
	reviews, err := y.client.Reviews(ctx, p.Number)
	y.must(err)
	if last := reviews[len(reviews)-1]; len(reviews) != 2 || last.Author != "robin" || last.Verdict != forge.Approved || !last.Stands || !last.Official || last.Commit != head || last.Body != "Go again" {
		t.Errorf("%+v", reviews)
	}
	merged, err := y.merge(p.Number, head)
	y.must(err)
	if merged.State != forge.Merged || merged.MergeCommit == "" {
		t.Errorf("%+v", merged)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	y := newYard(t, "errors")
	const token = "0123456789abcdef0123456789abcdef01234567"
	made := func(url, repo string) *gitea.Client {
		c, err := gitea.New(gitea.Options{URL: url, Repo: repo, User: "slipway", Token: policy.NewSecret(token)})
		y.must(err)
		return c
	}
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/moved/"):
			http.Redirect(w, r, "http://"+r.Host+"/elsewhere", http.StatusMovedPermanently)
		case strings.Contains(r.URL.Path, "/page/"):
			fmt.Fprint(w, "<html>")
		default:
			http.Error(w, "<h1>Bad gateway</h1>", http.StatusBadGateway)
		}
	}))
	defer broken.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, c := range map[string]struct {
		client    *gitea.Client
		is        error
		temporary bool
		words     string
	}{
		"wrong token": {made(y.host.URL, y.repo.Name), forge.ErrDenied, false, "HTTP 401"},
		"gone":        {made(gone.URL, "fleet/a"), nil, true, "connection refused"},
		"broken":      {made(broken.URL, "fleet/a"), nil, true, "HTTP 502"},
		"moved":       {made(broken.URL, "moved/a"), nil, false, "moved"},
		"no Gitea":    {made(broken.URL, "page/a"), nil, false, "no answer of a Gitea"},
	} {
		_, err := c.client.Pull(t.Context(), 7)
		var failed *forge.Error
		if !errors.As(err, &failed) || failed.Temporary() != c.temporary || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := fmt.Sprintf("%v %+v", err, failed); strings.Contains(text, token) || !strings.Contains(text, "read pull request 7") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if _, err := y.client.Pull(t.Context(), 7); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("not there: %v", err)
	}
	for name, o := range map[string]gitea.Options{
		"credentials in the URL": {URL: "https://slipway:" + token + "@git.example.com", Repo: "a/b", User: "u", Token: policy.NewSecret("t")},
		"no scheme":              {URL: "git.example.com", Repo: "a/b", User: "u", Token: policy.NewSecret("t")},
		"path in repo":           {URL: "https://git.example.com", Repo: "../../admin", User: "u", Token: policy.NewSecret("t")},
		"no token":               {URL: "https://git.example.com", Repo: "a/b", User: "u"},
	} {
		if _, err := gitea.New(o); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
