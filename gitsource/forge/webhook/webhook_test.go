package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/webhook"
	"github.com/slipway-cd/slipway/policy"
)

const secret = "a-secret-of-the-hook"

// desk is a Handler behind a real listener, with what it accepted and logged.
type desk struct {
	testing.TB
	url string

	mu     sync.Mutex
	pushes map[string]forge.Push // by what makes two the same
	logged strings.Builder
	fail   error
}

func open(t *testing.T, change func(*webhook.Options)) *desk {
	t.Helper()
	d := &desk{TB: t, pushes: map[string]forge.Push{}}
	o := webhook.Options{
		Hooks:  []webhook.Hook{{Name: "shop", Kind: forge.GitHub, Secret: policy.NewSecret(secret), CloneURL: "https://git.example.com/acme/shop"}},
		Accept: d.accept,
		Log: funcr.New(func(prefix, args string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.logged.WriteString(prefix + args + "\n")
		}, funcr.Options{}),
	}
	if change != nil {
		change(&o)
	}
	h, err := webhook.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	d.url = server.URL + webhook.Path
	return d
}

func (d *desk) accept(_ context.Context, p forge.Push) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	key := fmt.Sprint(p.Hook, p.Ref, p.After, p.Digest)
	if _, known := d.pushes[key]; known {
		return webhook.ErrKnown
	}
	d.pushes[key] = p
	return nil
}

func (d *desk) stored() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pushes)
}

func body(repo, ref string) string {
	return fmt.Sprintf(`{"ref":%q,"before":%q,"after":%q,"repository":{"full_name":%q,"clone_url":"https://git.example.com/%s.git"},"pusher":{"name":"robin"}}`,
		ref, strings.Repeat("1", 40), strings.Repeat("2", 40), repo, repo)
}

func (d *desk) request(name, body, key string) *http.Request {
	d.Helper()
	r, err := http.NewRequestWithContext(d.Context(), http.MethodPost, d.url+name, strings.NewReader(body))
	if err != nil {
		d.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	r.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	r.Header.Set("X-GitHub-Event", "push")
	r.Header.Set("X-GitHub-Delivery", "d-1")
	r.Header.Set("Content-Type", "application/json")
	return r
}

func (d *desk) send(r *http.Request) (int, string) {
	d.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		d.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		d.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestAnswers(t *testing.T) {
	good := body("acme/shop", "refs/heads/main")
	for name, c := range map[string]struct {
		request func(d *desk) *http.Request
		code    int
		words   string
		stored  int
	}{
		"push":           {func(d *desk) *http.Request { return d.request("shop", good, secret) }, 202, "stored", 1},
		"forged":         {func(d *desk) *http.Request { return d.request("shop", good, "guess") }, 401, "signature", 0},
		"forged rubbish": {func(d *desk) *http.Request { return d.request("shop", "}{", "guess") }, 401, "signature", 0},
		"unsigned": {func(d *desk) *http.Request {
			r := d.request("shop", good, secret)
			r.Header.Del("X-Hub-Signature-256")
			return r
		}, 401, "signature", 0},
		"rubbish":      {func(d *desk) *http.Request { return d.request("shop", "}{", secret) }, 400, "malformed", 0},
		"tag":          {func(d *desk) *http.Request { return d.request("shop", body("acme/shop", "refs/tags/v1"), secret) }, 200, "without effect", 0},
		"other repo":   {func(d *desk) *http.Request { return d.request("shop", body("eve/shop", "refs/heads/main"), secret) }, 403, "another repository", 0},
		"unknown hook": {func(d *desk) *http.Request { return d.request("fleet", good, secret) }, 404, "no such hook", 0},
		"below a hook": {func(d *desk) *http.Request { return d.request("shop/x", good, secret) }, 404, "no such hook", 0},
		"no name":      {func(d *desk) *http.Request { return d.request("", good, secret) }, 404, "no such hook", 0},
		"ping": {func(d *desk) *http.Request {
			r := d.request("shop", `{"zen":"Keep it simple."}`, secret)
			r.Header.Set("X-GitHub-Event", "ping")
			return r
		}, 200, "without effect", 0},
		"GET": {func(d *desk) *http.Request {
			r := d.request("shop", good, secret)
			r.Method = http.MethodGet
			return r
		}, 405, "POST", 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, nil)
			if code, words := d.send(c.request(d)); code != c.code || !strings.Contains(words, c.words) {
				t.Errorf("%d %s", code, words)
			}
			if d.stored() != c.stored {
				t.Errorf("%d pushes stored", d.stored())
			}
			if strings.Contains(d.logged.String(), secret) {
				t.Errorf("the log tells the secret:\n%s", d.logged.String())
			}
			if c.code >= 400 && !strings.Contains(d.logged.String(), "refused") {
				t.Errorf("not logged: %s", d.logged.String())
			}
		})
	}
}

func TestReplay(t *testing.T) {
	d := open(t, nil)
	message := body("acme/shop", "refs/heads/main")
	for i, want := range []int{202, 200, 200} {
		r := d.request("shop", message, secret)
		r.Header.Set("X-GitHub-Delivery", fmt.Sprint("d-", i)) // not signed: a replay may carry any
		if code, words := d.send(r); code != want {
			t.Errorf("%d: %d %s", i, code, words)
		}
	}
	if d.stored() != 1 {
		t.Errorf("stored %d times", d.stored())
	}
}

// The host sends again until the push is stored: no good answer before.
func TestNotStored(t *testing.T) {
	d := open(t, nil)
	message := body("acme/shop", "refs/heads/main")
	d.fail = errors.New("disk full at /secret/place")
	code, words := d.send(d.request("shop", message, secret))
	if code != 503 || strings.Contains(words, "disk") || !strings.Contains(d.logged.String(), "disk full") {
		t.Errorf("%d %s; log %s", code, words, d.logged.String())
	}
	d.mu.Lock()
	d.fail = nil
	d.mu.Unlock()
	if code, words := d.send(d.request("shop", message, secret)); code != 202 || d.stored() != 1 {
		t.Errorf("sent again: %d %s", code, words)
	}
}

func TestOversized(t *testing.T) {
	d := open(t, func(o *webhook.Options) { o.MaxBody = 1000 })
	large := strings.Repeat(" ", 1000) + body("acme/shop", "refs/heads/main")
	if code, words := d.send(d.request("shop", large, secret)); code != 413 {
		t.Errorf("with its length: %d %s", code, words)
	}
	r := d.request("shop", large, secret)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(large)), -1
	if code, words := d.send(r); code != 413 {
		t.Errorf("in chunks: %d %s", code, words)
	}
	if d.stored() != 0 {
		t.Error("stored")
	}
}

// Who trickles holds a place only so long, and who finds none is told to come again.
func TestTrickle(t *testing.T) {
	d := open(t, func(o *webhook.Options) { o.Parallel, o.Within = 1, 400*time.Millisecond })
	reader, writer := io.Pipe()
	r := d.request("shop", "", secret)
	r.Body, r.ContentLength = reader, -1
	slow := make(chan struct{})
	go func() {
		defer close(slow)
		if answer, err := http.DefaultClient.Do(r); err == nil {
			_ = answer.Body.Close()
		}
	}()
	if _, err := writer.Write([]byte("{")); err != nil { // returns when the transport has read it
		t.Fatal(err)
	}
	message := body("acme/shop", "refs/heads/main")
	deadline := time.Now().Add(10 * time.Second)
	turnedAway := false
	for {
		code, words := d.send(d.request("shop", message, secret))
		if code == 202 || code == 200 {
			if turnedAway {
				break
			}
		} else if code == 503 {
			turnedAway = true
		} else {
			t.Fatalf("%d %s", code, words)
		}
		if time.Now().After(deadline) {
			t.Fatalf("turned away %t, last %d %s", turnedAway, code, words)
		}
	}
	_ = writer.Close()
	<-slow
}

func TestParallel(t *testing.T) {
	d := open(t, func(o *webhook.Options) { o.Parallel = 2 })
	var group sync.WaitGroup
	for i := range 40 {
		r := d.request("shop", body("acme/shop", fmt.Sprintf("refs/heads/b%d", i%20)), secret)
		group.Go(func() {
			if code, words := d.send(r); code != 202 && code != 200 {
				t.Errorf("%d %s", code, words)
			}
		})
	}
	group.Wait()
	if d.stored() != 20 {
		t.Errorf("%d stored", d.stored())
	}
}

func TestSameRepository(t *testing.T) {
	for configured, fits := range map[string]bool{
		"https://git.example.com/acme/shop":             true,
		"https://GIT.example.com:443/acme/shop.git/":    true,
		"https://robin:pw@git.example.com/acme/shop":    true,
		"http://git.example.com/acme/shop":              false,
		"https://git.example.com:8443/acme/shop":        false,
		"https://git.example.com/acme/shop2":            false,
		"https://git.example.com.evil.org/acme/shop":    false,
		"https://git.example.com/acme/shop.git/../eve/": false,
		"git@git.example.com:acme/shop.git":             false, // the message names no SSH address
	} {
		d := open(t, func(o *webhook.Options) { o.Hooks[0].CloneURL = configured })
		code, words := d.send(d.request("shop", body("acme/shop", "refs/heads/main"), secret))
		if (code == 202) != fits {
			t.Errorf("%s: %d %s", configured, code, words)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*webhook.Options){
		"no secret":       func(o *webhook.Options) { o.Hooks[0].Secret = policy.Secret{} },
		"no Accept":       func(o *webhook.Options) { o.Accept = nil },
		"kind":            func(o *webhook.Options) { o.Hooks[0].Kind = "bitbucket" },
		"name":            func(o *webhook.Options) { o.Hooks[0].Name = "a/b" },
		"dots":            func(o *webhook.Options) { o.Hooks[0].Name = ".." },
		"clone URL":       func(o *webhook.Options) { o.Hooks[0].CloneURL = "shop" },
		"twice":           func(o *webhook.Options) { o.Hooks = append(o.Hooks, o.Hooks[0]) },
		"negative limits": func(o *webhook.Options) { o.MaxBody = -1 },
	} {
		o := webhook.Options{
			Hooks:  []webhook.Hook{{Name: "shop", Kind: forge.Gitea, Secret: policy.NewSecret(secret), CloneURL: "https://git.example.com/acme/shop"}},
			Accept: func(context.Context, forge.Push) error { return nil },
		}
		change(&o)
		if _, err := webhook.New(o); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Hooks that come and go are looked up; that nobody knows whether there is one is not "no".
func TestHooksThatAreLookedUp(t *testing.T) {
	var unknown error
	d := open(t, func(o *webhook.Options) {
		o.Find = func(_ context.Context, name string) (webhook.Hook, bool, error) {
			switch name {
			case "fleet":
				return webhook.Hook{Name: name, Kind: forge.GitHub, Secret: policy.NewSecret(secret), CloneURL: "https://git.example.com/acme/shop"}, true, unknown
			case "open": // without a secret it would take everything
				return webhook.Hook{Name: name, Kind: forge.GitHub, CloneURL: "https://git.example.com/acme/shop"}, true, unknown
			}
			return webhook.Hook{}, false, unknown
		}
	})
	good := body("acme/shop", "refs/heads/main")
	for name, want := range map[string]int{"fleet": 202, "open": 503, "other": 404, "shop": 202} {
		if code, words := d.send(d.request(name, good, secret)); code != want {
			t.Errorf("%s: %d %s, want %d", name, code, words, want)
		}
	}
	unknown = errors.New("the API server is away")
	if code, words := d.send(d.request("fleet", good, secret)); code != 503 || strings.Contains(words, "API server") {
		t.Errorf("%d %s", code, words)
	}
}
