package bare_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge/bare"
	"github.com/slipway-cd/slipway/policy"
)

func wantPushes(t *testing.T, got []bare.Push, want ...bare.Push) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("push events\n got %v\nwant %v", got, want)
	}
}

func TestPushAndClone(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	first := person.commit("first")
	person.git("push", s.url, "main")
	wantPushes(t, s.events(t, 1), bare.Push{Repo: "fleet", Ref: "refs/heads/main", New: first})
	second := person.commit("second")
	person.git("push", s.url, "main")
	wantPushes(t, s.events(t, 1), bare.Push{Repo: "fleet", Ref: "refs/heads/main", Old: first, New: second})

	other := newClone(t)
	other.git("clone", "-q", s.url, "copy")
	if got := other.git("-C", "copy", "rev-parse", "HEAD", "HEAD^"); got != fmt.Sprintf("%s\n%s", second, first) {
		t.Errorf("the clone has %s", got)
	}
	// What is there already moves nothing, and nobody is told.
	person.git("push", s.url, "main")
	third := person.commit("third")
	person.git("push", s.url, "main")
	wantPushes(t, s.events(t, 1), bare.Push{Repo: "fleet", Ref: "refs/heads/main", Old: second, New: third})
}

// Git sends what is larger than its buffer in chunks, of a length that it does not know beforehand.
func TestLargePushComesInChunks(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	large := make([]byte, 3<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(person.dir, "large"), large, 0o600); err != nil {
		t.Fatal(err)
	}
	person.git("add", "large")
	id := person.commit("large")
	person.git("push", s.url, "main")
	wantPushes(t, s.events(t, 1), bare.Push{Repo: "fleet", Ref: "refs/heads/main", New: id})
	if !s.saw(func(r *http.Request) bool { return slices.Contains(r.TransferEncoding, "chunked") }) {
		t.Error("no request came in chunks: the test tests nothing")
	}
}

func TestCompressedRequest(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	refs := []string{"main"}
	for i := range 40 {
		person.commit(fmt.Sprint(i))
		name := fmt.Sprintf("branch-%d", i)
		person.git("branch", name)
		refs = append(refs, name)
	}
	person.git(append([]string{"push", "-q", s.url}, refs...)...)
	s.events(t, len(refs))
	other := newClone(t)
	other.git("-c", "protocol.version=0", "fetch", "-q", s.url, "+refs/heads/*:refs/copied/*")
	if !s.saw(func(r *http.Request) bool { return r.Header.Get("Content-Encoding") == "gzip" }) {
		t.Error("no request was compressed: the test tests nothing")
	}
	if got := len(strings.Fields(other.git("for-each-ref", "--format=%(refname)"))); got != len(refs) {
		t.Errorf("%d refs, want %d", got, len(refs))
	}
}

func TestHistoryIsNotRewritten(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	person.commit("first")
	second := person.commit("second")
	person.git("push", s.url, "main")
	s.events(t, 1)
	person.git("reset", "-q", "--hard", "HEAD^")
	person.commit("another second")
	person.refused("rejected", "push", s.url, "main")
	person.refused("non-fast-forward", "push", "--force", s.url, "main")
	// Nor by the detour of deleting the branch.
	person.refused("deletion of the current branch prohibited", "push", s.url, ":main")
	if got := person.git("ls-remote", s.url, "refs/heads/main"); !strings.HasPrefix(got, string(second)) {
		t.Errorf("main is at %s, want %s", got, second)
	}
	// Refused pushes are no events: the next one there is belongs to the next push.
	person.git("push", s.url, "main:request")
	if got := s.events(t, 1); len(got) != 1 || got[0].Ref != "refs/heads/request" {
		t.Errorf("push events %v", got)
	}
}

func TestRequestBranchGoesAndItsCommitStays(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	base := person.commit("base")
	person.git("push", s.url, "main")
	request := person.commit("request")
	person.git("push", s.url, "main:promote/production/shop")
	person.git("push", s.url, ":promote/production/shop")
	const ref = "refs/heads/promote/production/shop"
	wantPushes(t, s.events(t, 3),
		bare.Push{Repo: "fleet", Ref: "refs/heads/main", New: base},
		bare.Push{Repo: "fleet", Ref: ref, New: request},
		bare.Push{Repo: "fleet", Ref: ref, Old: request})
	// A revert may need a commit that no branch names any more.
	other := newClone(t)
	other.git("fetch", "-q", "--depth=1", s.url, string(request))
	if got := other.git("rev-parse", "FETCH_HEAD"); got != string(request) {
		t.Errorf("fetched %s, want %s", got, request)
	}
}

func TestOneEventForEachRefInOrder(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	id := person.commit("first")
	person.git("push", s.url, "main:c", "main:a", "main:refs/tags/v1", "main:b")
	var want []bare.Push
	for _, ref := range []string{"refs/heads/a", "refs/heads/b", "refs/heads/c", "refs/tags/v1"} {
		want = append(want, bare.Push{Repo: "fleet", Ref: ref, New: id})
	}
	wantPushes(t, s.events(t, len(want)), want...)
}

func TestConcurrentPushes(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	base := person.commit("base")
	person.git("push", s.url, "main")
	s.events(t, 1)
	const people = 6
	clones, ids, errs := make([]clone, people), make([]gitsource.ObjectID, people), make([]error, people)
	for i := range people {
		clones[i] = newClone(t)
		clones[i].git("pull", "-q", s.url, "main")
		ids[i] = clones[i].commit(fmt.Sprint("by ", i))
	}
	var running sync.WaitGroup
	for i := range people {
		running.Go(func() {
			_, errs[i] = clones[i].try("push", s.url, "main", fmt.Sprintf("main:own-%d", i))
		})
	}
	running.Wait()
	// Each has its own branch; one has main as well.
	var won []gitsource.ObjectID
	for i, err := range errs {
		if err == nil {
			won = append(won, ids[i])
		}
	}
	if len(won) != 1 {
		t.Fatalf("%d pushes to one branch succeeded, want 1: %v", len(won), errors.Join(errs...))
	}
	events := s.events(t, people+1)
	for i := range people {
		if want := (bare.Push{Repo: "fleet", Ref: fmt.Sprintf("refs/heads/own-%d", i), New: ids[i]}); !slices.Contains(events, want) {
			t.Errorf("no event %v in %v", want, events)
		}
	}
	if want := (bare.Push{Repo: "fleet", Ref: "refs/heads/main", Old: base, New: won[0]}); len(events) != people+1 || !slices.Contains(events, want) {
		t.Errorf("push events %v, want %v among %d", events, want, people+1)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := serve(t, func(o *bare.Options) {
		o.Tokens = []bare.Token{{Secret: policy.NewSecret("reads")}, {Secret: policy.NewSecret("writes"), Access: bare.Write}}
	})
	person := newClone(t)
	person.commit("first")
	for _, c := range []struct {
		url         string
		read, write bool
	}{
		{s.as("writes"), true, true},
		{s.as("reads"), true, false},
		{s.as("read"), false, false},
		{s.as(""), false, false},
		{s.url, false, false},
	} {
		if _, err := person.try("push", c.url, "main"); (err == nil) != c.write {
			t.Errorf("push with %s: %v, allowed %v", c.url, err, c.write)
		}
		if _, err := person.try("ls-remote", c.url); (err == nil) != c.read {
			t.Errorf("read with %s: %v, allowed %v", c.url, err, c.read)
		}
	}
	answer := s.ask(http.MethodPost, "/fleet.git/git-receive-pack", "")
	if challenge := answer.Header().Get("WWW-Authenticate"); answer.Code != http.StatusUnauthorized || challenge == "" {
		t.Errorf("without a token: %d, WWW-Authenticate %q", answer.Code, challenge)
	}
}

// ask calls the host with a path that no HTTP client would send.
func (s *served) ask(method, path, query string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, "/", http.NoBody)
	request.URL = &url.URL{Path: path, RawQuery: query}
	answer := httptest.NewRecorder()
	s.host.ServeHTTP(answer, request)
	return answer
}

// The first of two services decides about the token, so it decides about the answer too.
func TestServiceIsAskedOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, func(o *bare.Options) { o.Tokens = []bare.Token{{Secret: policy.NewSecret("reads")}} })
	request := httptest.NewRequest(http.MethodGet, "/fleet.git/info/refs?service=git-upload-pack&service=git-receive-pack", http.NoBody)
	request.SetBasicAuth("robin", "reads")
	answer := httptest.NewRecorder()
	s.host.ServeHTTP(answer, request)
	if got := answer.Header().Get("Content-Type"); got != "application/x-git-upload-pack-advertisement" {
		t.Errorf("%d %s", answer.Code, got)
	}
	if request.Header.Get("Authorization") == "" {
		t.Error("the caller's request was changed")
	}
}

func TestCreateOnPush(t *testing.T) {
	t.Parallel()
	for name, creates := range map[string]bool{"asked for": true, "not asked for": false} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(o *bare.Options) { o.CreateOnPush = creates })
			c := newClone(t)
			id := c.commit("first")
			target := strings.Replace(s.url, "fleet.git", "shop.git", 1)
			if _, err := c.try("fetch", target); err == nil {
				t.Error("a repository that is not there was read")
			}
			if _, err := os.Stat(filepath.Join(s.root, "shop.git")); err == nil {
				t.Error("reading made a repository")
			}
			if !creates {
				c.refused("not found", "push", target, "HEAD:refs/heads/main")
				return
			}
			c.git("push", target, "HEAD:refs/heads/main")
			wantPushes(t, s.events(t, 1), bare.Push{Repo: "shop", Ref: "refs/heads/main", New: id})
		})
	}
}

func TestEmptyTokenIsRefused(t *testing.T) {
	t.Parallel()
	_, err := bare.New(bare.Options{Root: t.TempDir(), Tokens: []bare.Token{{Secret: policy.NewSecret("")}}})
	if err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("%v", err)
	}
}

func TestOnlyTheSmartProtocolBelowTheRoot(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	outside := filepath.Join(filepath.Dir(s.root), "outside.git")
	if err := os.MkdirAll(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	const service = "service=git-upload-pack"
	for _, c := range []struct {
		path, query string
		want        int
	}{
		{"/fleet.git/info/refs", service, http.StatusOK},
		{"/fleet.git/info/refs", "", http.StatusForbidden},
		{"/fleet.git/info/refs", "service=git-upload-archive", http.StatusForbidden},
		{"/fleet.git/HEAD", "", http.StatusNotFound},
		{"/fleet.git/config", "", http.StatusNotFound},
		{"/fleet.git/objects/info/packs", "", http.StatusNotFound},
		{"/fleet.git", "", http.StatusNotFound},
		{"/", "", http.StatusNotFound},
		{"/missing.git/info/refs", service, http.StatusNotFound},
		{"/../outside.git/info/refs", service, http.StatusNotFound},
		{"/..git/info/refs", service, http.StatusNotFound},
		{"/.git/info/refs", service, http.StatusNotFound},
		{"/a/../fleet.git/info/refs", service, http.StatusNotFound},
		{"/fleet.git/../fleet.git/info/refs", service, http.StatusNotFound},
		{"//fleet.git/info/refs", service, http.StatusNotFound},
		{"/fleet.git.git/info/refs", service, http.StatusNotFound},
		{"/-fleet.git/info/refs", service, http.StatusNotFound},
	} {
		if got := s.ask(http.MethodGet, c.path, c.query).Code; got != c.want {
			t.Errorf("GET %s?%s: %d, want %d", c.path, c.query, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a..b", ".hidden", "-q", "x.git", "a b", "a\x00b", "é", strings.Repeat("x", 101)} {
		if err := s.host.Create(t.Context(), name); err == nil {
			t.Errorf("%q was created", name)
		}
	}
	for _, name := range []string{"shop", "a.b_c-1"} {
		if err := s.host.Create(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	got, err := s.host.Names()
	if err != nil || !slices.Equal(got, []string{"a.b_c-1", "fleet", "shop"}) {
		t.Errorf("names %q, %v", got, err)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	s, person := serve(t, nil), newClone(t)
	id := person.commit("first")
	person.git("push", s.url, "main")
	if err := s.host.Create(t.Context(), "fleet"); err != nil {
		t.Fatal(err)
	}
	if got := person.git("ls-remote", s.url, "HEAD"); !strings.HasPrefix(got, string(id)) {
		t.Errorf("HEAD is %s, want %s", got, id)
	}
	// A process that was killed in the middle of Create leaves half of a repository.
	if err := os.MkdirAll(filepath.Join(s.root, "half.git"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.root, "half.git", "HEAD"), []byte("ref: refs/heads/main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.host.Create(t.Context(), "half"); err != nil {
		t.Error(err)
	}
}

func TestPushLimit(t *testing.T) {
	t.Parallel()
	s, person := serve(t, func(o *bare.Options) { o.MaxPush = 64 << 10 }), newClone(t)
	id := person.commit("small")
	person.git("push", s.url, "main")
	large := make([]byte, 256<<10)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(person.dir, "large"), large, 0o600); err != nil {
		t.Fatal(err)
	}
	person.git("add", "large")
	person.commit("large")
	if out, err := person.try("push", s.url, "main"); err == nil {
		t.Errorf("a push over the limit went through:\n%s", out)
	}
	if got := person.git("ls-remote", s.url, "refs/heads/main"); !strings.HasPrefix(got, string(id)) {
		t.Errorf("main is at %s, want %s", got, id)
	}
}

// What the user configured for their own Git must not reach the host's.
func TestUsersConfigurationStaysOut(t *testing.T) {
	home := t.TempDir()
	config := "[receive]\n\tdenyCurrentBranch = refuse\n[http]\n\treceivepack = false\n[init]\n\tdefaultBranch = trunk\n[core]\n\thooksPath = " + home + "\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "pre-receive"), []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil { //nolint:gosec // a hook must be executable
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("GIT_DIR", filepath.Join(home, "nowhere"))
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, ".gitconfig"))
	s, person := serve(t, nil), newClone(t)
	id := person.commit("first")
	person.git("push", s.url, "main")
	wantPushes(t, s.events(t, 1), bare.Push{Repo: "fleet", Ref: "refs/heads/main", New: id})
}
