package promoter_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource/forge/bare"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/promoter"
)

const loadApps = 50

// load is an environment repo of 50 apps and 200 commits on a Git host, with a Promoter over go-git, as the server has it.
type load struct {
	*testing.T
	host, url string
}

func newLoad(t *testing.T) *load {
	t.Helper()
	root := t.TempDir()
	h, err := bare.New(bare.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Create(ctx, "env"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	l := &load{T: t, host: filepath.Join(root, "env.git"), url: server.URL + "/env.git"}
	var stream strings.Builder
	for n := range 200 {
		fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter Bob <bob@example.org> %d +0000\ndata 5\nBegin\n", noon.Add(time.Duration(n-200)*time.Minute).Unix())
		if n == 0 {
			file(&stream, "slipway.yaml", slipwayYAML)
			for i := range loadApps {
				file(&stream, fmt.Sprintf("apps/app-%d/dev/kustomization.yaml", i), kustomization("a"))
				file(&stream, fmt.Sprintf("apps/app-%d/production/kustomization.yaml", i), kustomization("a"))
			}
			continue
		}
		file(&stream, fmt.Sprintf("apps/app-%d/dev/note.txt", n%loadApps), fmt.Sprint(n))
	}
	if _, err := run(ctx, l.host, nil, stream.String(), "fast-import", "--quiet"); err != nil {
		t.Fatal(err)
	}
	return l
}

func file(stream *strings.Builder, path, content string) {
	fmt.Fprintf(stream, "M 644 inline %s\ndata %d\n%s\n", path, len(content), content)
}

func (l *load) server() *promoter.Promoter {
	l.Helper()
	store, err := gogit.Open(ctx, gogit.Options{Dir: l.TempDir(), URL: l.url})
	if err != nil {
		l.Fatal(err)
	}
	p, err := promoter.New(promoter.Options{Repo: store})
	if err != nil {
		l.Fatal(err)
	}
	return p
}

// hundred are two builds for each of 50 apps.
func hundred() []promoter.Update {
	var out []promoter.Update
	for i := range 2 * loadApps {
		u := built(1+i/loadApps, string("bc"[i/loadApps]))
		u.App = fmt.Sprintf("app-%d", i%loadApps)
		out = append(out, u)
	}
	return out
}

// TestHundredUpdatesAtOnce: two servers get the same 100 updates of 50 apps from 100 callers each.
func TestHundredUpdatesAtOnce(t *testing.T) {
	l := newLoad(t)
	began := time.Now()
	var servers sync.WaitGroup
	for range 2 {
		b := runBatch(t, l.server().WriteBack, promoter.BatchOptions{Wait: 50 * time.Millisecond})
		for _, u := range hundred() {
			servers.Go(func() {
				for { // a server sends again what may have another outcome
					bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
					got, err := b.Write(bounded, u)
					cancel()
					if err != nil || got.Outcome == promoter.Unwritten && !got.Again() {
						t.Errorf("%s: %+v, %v", u.App, got, err)
						return
					}
					if !got.Again() {
						return
					}
				}
			})
		}
	}
	servers.Wait()
	took := time.Since(began)
	commits := strings.Count(git(t, l.host, "log", "--format=%H", "main"), "\n") + 1 - 200
	t.Logf("2 x 100 updates of %d apps: %d commits in %s", loadApps, commits, took.Round(time.Millisecond))
	if commits > 8 {
		t.Errorf("%d commits", commits)
	}
	for i := range loadApps {
		if got := git(t, l.host, "show", fmt.Sprintf("main:apps/app-%d/dev/kustomization.yaml", i)); got+"\n" != kustomization("c") {
			t.Errorf("app-%d:\n%s", i, got)
		}
	}
}
