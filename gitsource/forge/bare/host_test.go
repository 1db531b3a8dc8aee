package bare_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge/bare"
)

// served is a Host behind a real listener, with the events and requests that it saw.
type served struct {
	host *bare.Host
	root string
	url  string // of the repository fleet

	mu       sync.Mutex
	pushes   []bare.Push
	requests []*http.Request
}

func serve(t *testing.T, change func(*bare.Options)) *served {
	t.Helper()
	s := &served{root: t.TempDir()}
	options := bare.Options{Root: s.root, OnPush: func(push bare.Push) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pushes = append(s.pushes, push)
	}}
	if change != nil {
		change(&options)
	}
	var err error
	if s.host, err = bare.New(options); err != nil {
		t.Fatal(err)
	}
	if err := s.host.Create(t.Context(), "fleet"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Clone(context.WithoutCancel(r.Context())))
		s.mu.Unlock()
		s.host.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL + "/fleet.git"
	return s
}

// as returns the URL of the repository with a password in it.
func (s *served) as(token string) string {
	return strings.Replace(s.url, "http://", "http://robin:"+token+"@", 1)
}

// events returns the pushes since the last call. The host tells of a push after it
// has answered, so they are waited for.
func (s *served) events(t *testing.T, want int) []bare.Push {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		got := s.pushes
		if len(got) >= want {
			s.pushes = nil
			s.mu.Unlock()
			return got
		}
		s.mu.Unlock()
		select {
		case <-deadline:
			t.Fatalf("%d push events, want %d: %v", len(got), want, got)
		case <-tick.C:
		}
	}
}

func (s *served) saw(is func(*http.Request) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.requests, is)
}

// clone is a person's repository.
type clone struct {
	t   *testing.T
	dir string
}

func newClone(t *testing.T) clone {
	t.Helper()
	c := clone{t, t.TempDir()}
	c.git("init", "-q", "-b", "main")
	return c
}

func (c clone) try(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = c.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Robin", "GIT_AUTHOR_EMAIL=robin@shop.example", "GIT_COMMITTER_NAME=Robin", "GIT_COMMITTER_EMAIL=robin@shop.example",
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (c clone) git(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused fails the test unless git fails and says why.
func (c clone) refused(why string, args ...string) {
	c.t.Helper()
	if out, err := c.try(args...); err == nil || !strings.Contains(out, why) {
		c.t.Fatalf("git %s: %v, want %q in:\n%s", strings.Join(args, " "), err, why, out)
	}
}

func (c clone) commit(message string) gitsource.ObjectID {
	c.t.Helper()
	c.git("commit", "-q", "--allow-empty", "-m", message)
	return gitsource.ObjectID(c.git("rev-parse", "HEAD"))
}
