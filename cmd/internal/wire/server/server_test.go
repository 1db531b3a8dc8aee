package server_test

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
	"github.com/slipway-cd/slipway/reconciler/report"
)

// TestOneRevert: however often and through whichever server a request comes, Git holds one commit.
func TestOneRevert(t *testing.T) {
	w := newWorld(t)
	first := w.serve(nil)
	r := w.request()
	answers := make([]report.Answer, 8)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], err = first.Revert(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	want := report.Answer{Commit: string(w.tip())}
	for _, got := range answers {
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	first.stop()
	// Another server, which knows nothing, and more commits since.
	w.write("Fixed", map[string]string{images: kustomization("c")})
	if got, err := w.serve(nil).Revert(t.Context(), r); err != nil || got != want {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	if log := w.log("main"); len(log) != 5 || !strings.HasPrefix(log[1], "Revert ") {
		t.Errorf("%q", log)
	}
	if w.git("-C", w.dir, "show", want.Commit+":"+images)+"\n" != kustomization("a") || w.git("-C", w.dir, "show", want.Commit+":README.md") != "kept" {
		t.Error("the revert has other content")
	}
}

func TestSuperseded(t *testing.T) {
	w := newWorld(t)
	s := w.serve(nil)
	r := w.request()
	w.write("Rival", map[string]string{"README.md": "rival\n"})
	if got, err := s.Revert(t.Context(), r); err != nil || got != (report.Answer{Superseded: true}) {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := s.Revert(t.Context(), w.request()); err != nil || got.Commit != string(w.tip()) {
		t.Errorf("%+v %v", got, err)
	}
	if w.git("-C", w.dir, "show", "main:README.md") != "rival" {
		t.Error("the rival's commit is lost")
	}
}

func TestForAPerson(t *testing.T) {
	w := newWorld(t)
	s := w.serve(nil)
	r := w.request()
	r.Direct, r.Why = false, "cluster us is healthy with it"
	w.sign(&r)
	before := w.tip()
	for range 2 {
		if got, err := s.Revert(t.Context(), r); err != nil || got != (report.Answer{Branch: "revert/production/shop"}) {
			t.Errorf("%+v %v", got, err)
		}
	}
	if w.tip() != before || len(w.log("revert/production/shop")) != 4 {
		t.Errorf("%q", w.log("revert/production/shop"))
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := w.serve(nil)
	before := w.tip()
	for name, c := range map[string]struct {
		change func(*v1alpha1.RevertRequest)
		want   string
	}{
		"forged":           {func(r *v1alpha1.RevertRequest) { r.Message = "Trust me" }, "does not fit the agent's key"},
		"other key":        {func(r *v1alpha1.RevertRequest) { _ = undo.Sign(stranger, r) }, "does not fit the agent's key"},
		"unsigned":         {func(r *v1alpha1.RevertRequest) { r.Signature = "" }, "does not fit the agent's key"},
		"unknown cluster":  {func(r *v1alpha1.RevertRequest) { r.Cluster = "us"; w.sign(r) }, environment.AgentKeyPath("us") + ": not there"},
		"other repository": {func(r *v1alpha1.RevertRequest) { r.URL = "https://elsewhere.example/x.git"; w.sign(r) }, "does not write to branch main of https://elsewhere.example/x.git"},
		"other branch":     {func(r *v1alpha1.RevertRequest) { r.Branch = "next"; w.sign(r) }, "does not write to branch next"},
		"old":              {func(r *v1alpha1.RevertRequest) { r.At.Time = r.At.Add(-48 * time.Hour); w.sign(r) }, "older than"},
		"other tree":       {func(r *v1alpha1.RevertRequest) { r.Tree = strings.Repeat("1", 40); w.sign(r) }, "the merge gives tree"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.request()
			c.change(&r)
			if _, err := s.Revert(t.Context(), r); err == nil || !strings.Contains(err.Error(), "refused it: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if w.tip() != before {
		t.Error("something was pushed")
	}
}

// TestGitHostDown: nobody knows, so the agent hears 503 and asks again.
func TestGitHostDown(t *testing.T) {
	w := newWorld(t)
	down := "http://127.0.0.1:1/env.git"
	s := w.serve(func(o *server.Options) { o.Repositories[0].URL = down })
	r := w.request()
	r.URL = down
	w.sign(&r)
	if _, err := s.Revert(t.Context(), r); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), gitsource.ErrUnreachable.Error()) {
		t.Error(err)
	}
}

// TestNudgeByPolling: a push that nobody announces reaches the agent.
func TestNudgeByPolling(t *testing.T) {
	w := newWorld(t)
	s := w.serve(func(o *server.Options) { o.Poll = 20 * time.Millisecond })
	connected, heard := make(chan struct{}, 1), make(chan report.Nudge, 100)
	ctx, stop := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	listening.Go(func() {
		s.Nudges(ctx, func() { connected <- struct{}{} }, func(n report.Nudge) { heard <- n })
	})
	defer listening.Wait()
	defer stop()
	<-connected
	deadline := time.After(20 * time.Second)
	for n := 0; ; n++ { // the first look may come after the first commit
		w.write("Move", map[string]string{"README.md": strings.Repeat("x", n)})
		select {
		case got := <-heard:
			if got != (report.Nudge{URL: w.url, Ref: "refs/heads/main"}) {
				t.Errorf("%+v", got)
			}
			return
		case <-time.After(200 * time.Millisecond):
		case <-deadline:
			t.Fatal("no nudge within 20 s")
		}
	}
}

// TestStopEndsStreams: a listener does not keep the server from stopping.
func TestStopEndsStreams(t *testing.T) {
	w := newWorld(t)
	hub := console.NewHub(0)
	s := w.serve(func(o *server.Options) { o.Hub = hub })
	connected := make(chan struct{}, 10)
	ctx, hangUp := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	listening.Go(func() { s.Nudges(ctx, func() { connected <- struct{}{} }, func(report.Nudge) {}) })
	<-connected
	begin := time.Now()
	s.stop()
	if took := time.Since(begin); took > 5*time.Second || hub.Subscribers() != 0 {
		t.Errorf("it took %s, %d subscribers are left", took, hub.Subscribers())
	}
	hangUp()
	listening.Wait()
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		o    server.Options
		want string
	}{
		"plain for all":   {server.Options{Repositories: []server.Repository{{URL: "http://127.0.0.1:1/x.git"}}, Listen: ":0"}, "only a loopback address"},
		"plain by name":   {server.Options{Repositories: []server.Repository{{URL: "http://127.0.0.1:1/x.git"}}, Listen: "example.com:80"}, "only a loopback address"},
		"no repositories": {server.Options{Listen: "127.0.0.1:0"}, "no repository"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Data = t.TempDir()
			if _, err := server.New(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestAuthorityStays: agents that trust it need no change after a restart.
func TestAuthorityStays(t *testing.T) {
	dir := t.TempDir()
	var trusts [2]*http.Client
	var leaves [2][]byte
	for i := range trusts {
		config, trust, err := server.SelfSigned(dir, []string{"127.0.0.1", "slipway.example"})
		if err != nil {
			t.Fatal(err)
		}
		if trusts[i], err = server.Trusting(trust); err != nil {
			t.Fatal(err)
		}
		leaves[i] = config.Certificates[0].Certificate[1]
	}
	if !slices.Equal(leaves[0], leaves[1]) {
		t.Error("a restart made another authority")
	}
}
