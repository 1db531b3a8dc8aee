package gitea_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/webhook"
	"github.com/slipway-cd/slipway/policy"
)

const hookSecret = "between the host and us"

// desk is the receiving end of a repository's hook.
type desk struct {
	*yard
	mu       sync.Mutex
	pushes   []forge.Push
	at       []time.Time
	requests []sent // as the host sent them
	codes    []int
	failures int // of Accept that are still to come
}

type sent struct {
	header http.Header
	body   []byte
}

// listen has the pushes of a yard told to a real listener.
func listen(y *yard) *desk {
	y.Helper()
	d := &desk{yard: y}
	handler, err := webhook.New(webhook.Options{
		Hooks:  []webhook.Hook{{Name: "shop", Kind: forge.Gitea, Secret: policy.NewSecret(hookSecret), CloneURL: y.repo.URL}},
		Accept: d.accept,
	})
	y.must(err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			y.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, r)
		d.mu.Lock()
		d.requests, d.codes = append(d.requests, sent{r.Header.Clone(), body}), append(d.codes, recorder.Code)
		d.mu.Unlock()
		w.WriteHeader(recorder.Code)
	}))
	y.Cleanup(server.Close)
	y.must(y.host.Hook(y.Context(), y.repo, server.URL+webhook.Path+"shop", hookSecret))
	return d
}

func (d *desk) accept(_ context.Context, p forge.Push) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failures > 0 {
		d.failures--
		return errors.New("no room")
	}
	for _, known := range d.pushes {
		if known.Hook == p.Hook && known.Ref == p.Ref && known.After == p.After && known.Digest == p.Digest {
			return webhook.ErrKnown
		}
	}
	d.pushes, d.at = append(d.pushes, p), append(d.at, time.Now())
	return nil
}

// arrived waits for the push that brings a commit to a branch.
func (d *desk) arrived(ref string, id gitsource.ObjectID) (forge.Push, time.Time) {
	d.Helper()
	var push forge.Push
	var at time.Time
	d.eventually(func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		for i, p := range d.pushes {
			if p.Ref == ref && p.After == id {
				push, at = p, d.at[i]
			}
		}
		return push.After != ""
	})
	return push, at
}

func TestPushesAndMergesArrive(t *testing.T) {
	t.Parallel()
	y := newYard(t, "hooks")
	d := listen(y)
	base := gitsource.ObjectID(y.git("rev-parse", "main"))
	start := time.Now()
	id := y.commit("Second")
	y.must(y.push(y.robin, "main"))
	pushed := time.Now()
	push, at := d.arrived("refs/heads/main", id)
	t.Logf("webhook %d ms after the push had returned, which took %d ms", at.Sub(pushed).Milliseconds(), pushed.Sub(start).Milliseconds())
	want := forge.Push{
		Kind: forge.Gitea, Hook: "shop", Delivery: push.Delivery, Digest: push.Digest, CloneURL: y.repo.URL, SSHURL: push.SSHURL,
		FullName: y.repo.Name, Ref: "refs/heads/main", Before: base, After: id, Pusher: "robin",
	}
	if push != want || push.Delivery == "" {
		t.Errorf("got %+v\nwant %+v", push, want)
	}
	head := y.branch("promote/a")
	if fresh, _ := d.arrived("refs/heads/promote/a", head); fresh.Before != "" {
		t.Errorf("a new branch was at %s", fresh.Before)
	}
	p, err := y.client.OpenRequest(t.Context(), forge.Request{Head: "promote/a", Base: "main", Title: "Promote a"})
	y.must(err)
	merged, err := y.merge(p.Number, head)
	y.must(err)
	if merge, _ := d.arrived("refs/heads/main", merged.MergeCommit); merge.Before != id || merge.Pusher != "slipway" {
		t.Errorf("merge %+v", merge)
	}
	y.git("tag", "v1")
	y.must(y.push(y.robin, "v1"))
	y.must(y.push(y.robin, ":promote/a"))
	// Behind tag and deletion, so that both have come when it has.
	last := y.branch("last")
	d.arrived("refs/heads/last", last)
	d.mu.Lock()
	defer d.mu.Unlock()
	// The first push may be among them, from before there was a hook: the host looks for hooks later.
	counted := slices.DeleteFunc(slices.Clone(d.pushes), func(p forge.Push) bool { return p.After == base })
	if len(counted) != 4 {
		t.Errorf("%d pushes accepted: %+v", len(counted), counted)
	}
	for i, code := range d.codes {
		if code != http.StatusAccepted && code != http.StatusOK {
			t.Errorf("answered %d to %s", code, d.requests[i].body)
		}
	}
}

// What the host has really sent, sent by somebody else.
func TestForgedAndReplayed(t *testing.T) {
	t.Parallel()
	y := newYard(t, "forged")
	d := listen(y)
	id := y.commit("Second")
	y.must(y.push(y.robin, "main"))
	d.arrived("refs/heads/main", id)
	var genuine sent
	d.eventually(func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, r := range d.requests {
			if bytes.Contains(r.body, fmt.Appendf(nil, `"after": "%s"`, id)) {
				genuine = r
			}
		}
		return genuine.body != nil
	})
	handler := func(name, secret, clone string, limit int64) http.Handler {
		h, err := webhook.New(webhook.Options{
			Hooks: []webhook.Hook{{Name: name, Kind: forge.Gitea, Secret: policy.NewSecret(secret), CloneURL: clone}}, Accept: d.accept, MaxBody: limit,
		})
		y.must(err)
		return h
	}
	flipped := bytes.Clone(genuine.body)
	flipped[bytes.Index(flipped, []byte(id))] ^= 1
	for name, c := range map[string]struct {
		handler http.Handler
		body    []byte
		change  func(http.Header)
		code    int
	}{
		"replayed":              {handler("shop", hookSecret, y.repo.URL, 0), genuine.body, nil, 200},
		"as another delivery":   {handler("shop", hookSecret, y.repo.URL, 0), genuine.body, func(h http.Header) { h.Set("X-Gitea-Delivery", "new") }, 200},
		"by the other header":   {handler("shop", hookSecret, y.repo.URL, 0), genuine.body, func(h http.Header) { h.Del("X-Gitea-Signature") }, 200},
		"as another event":      {handler("shop", hookSecret, y.repo.URL, 0), genuine.body, func(h http.Header) { h.Set("X-Gitea-Event", "create") }, 200},
		"one bit":               {handler("shop", hookSecret, y.repo.URL, 0), flipped, nil, 401},
		"of another secret":     {handler("shop", "another", y.repo.URL, 0), genuine.body, nil, 401},
		"unsigned":              {handler("shop", hookSecret, y.repo.URL, 0), genuine.body, func(h http.Header) { h.Del("X-Gitea-Signature"); h.Del("X-Hub-Signature-256") }, 401},
		"of another repository": {handler("shop", hookSecret, y.host.URL+"/fleet/other", 0), genuine.body, nil, 403},
		"to another hook":       {handler("other", hookSecret, y.repo.URL, 0), genuine.body, nil, 404},
		"too large":             {handler("shop", hookSecret, y.repo.URL, int64(len(genuine.body))-1), genuine.body, nil, 413},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, webhook.Path+"shop", bytes.NewReader(c.body))
		r.Header = genuine.header.Clone()
		if c.change != nil {
			c.change(r.Header)
		}
		recorder := httptest.NewRecorder()
		c.handler.ServeHTTP(recorder, r)
		if recorder.Code != c.code {
			t.Errorf("%s: %d %s", name, recorder.Code, recorder.Body)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(slices.DeleteFunc(slices.Clone(d.pushes), func(p forge.Push) bool { return p.After != id })); n != 1 {
		t.Errorf("accepted %d times", n)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	y := newYard(t, "latency")
	d := listen(y)
	var all []time.Duration
	for i := range 6 {
		id := y.commit("Change " + string(rune('a'+i)))
		y.must(y.push(y.robin, "main"))
		pushed := time.Now()
		_, at := d.arrived("refs/heads/main", id)
		all = append(all, at.Sub(pushed))
	}
	t.Logf("from the end of the push to its webhook: %v", all)
}
