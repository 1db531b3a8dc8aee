package sigstore_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	image := w.attested(t, "shop", "a")
	unsigned, bound, half := w.image(t, "shop", "unsigned"), w.image(t, "shop", "bound"), w.image(t, "half", "a")
	for _, a := range w.attachments(t, image) {
		w.attach(t, bound, a, a.bundle)
		if a.manifest.Annotations["dev.sigstore.bundle.predicateType"] == sigstore.PredicateSignature {
			w.attach(t, half, a, a.bundle)
		}
	}
	_, stranger := generate(t, policy.Secret{})
	tag, err := name.NewTag(w.host + "/shop:v1")
	if err != nil {
		t.Fatal(err)
	}
	described, err := remote.Get(tag.Context().Digest(image.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Tag(tag, described); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		image  string
		change func(*policy.Requirement)
		want   error  // nil: accepted
		says   string // part of the refusal
	}{
		"signed and built as asked": {image: image.Reference()},
		"with a tag beside":         {image: image.Repository + ":v1@" + image.Digest},
		"the second of two keys": {image: image.Reference(), change: func(r *policy.Requirement) {
			r.Keys = append([]policy.Key{{Name: "old", PEM: string(stranger)}}, r.Keys...)
		}},
		"any source and builder": {image: image.Reference(), change: func(r *policy.Requirement) { r.Provenance = &policy.Provenance{} }},
		"signature alone":        {image: half.Reference(), change: func(r *policy.Requirement) { r.Provenance = nil }},
		"by tag":                 {image: tag.String(), want: sigstore.ErrNoDigest, says: "write NAME@sha256:"},
		"unsigned":               {image: unsigned.Reference(), want: sigstore.ErrUnsigned, says: "image " + unsigned.Reference() + ": refused by image policy shop: not signed (let a Slipway pipeline build it"},
		"another key": {
			image: image.Reference(), want: sigstore.ErrOtherKey, says: "add the signer's public key to spec.keys",
			change: func(r *policy.Requirement) { r.Keys[0].PEM = string(stranger) },
		},
		"another digest": {image: bound.Reference(), want: sigstore.ErrOtherDigest},
		"no provenance":  {image: half.Reference(), want: sigstore.ErrNoProvenance},
		"another source": {
			image: image.Reference(), want: sigstore.ErrOtherSource, says: "built from another source: https://git.example.com/acme/shop (build it from",
			change: func(r *policy.Requirement) { r.Provenance.Sources = []string{"https://git.example.com/acme/till"} },
		},
		"a source that only begins alike": {
			image: image.Reference(), want: sigstore.ErrOtherSource,
			change: func(r *policy.Requirement) { r.Provenance.Sources = []string{"https://git.example.com/acme"} },
		},
		"another builder": {
			image: image.Reference(), want: sigstore.ErrOtherBuilder, says: sigstore.DefaultBuilder + "/runc-root",
			change: func(r *policy.Requirement) { r.Provenance.Builders = []string{sigstore.DefaultBuilder + "/pod"} },
		},
		"a key that is none": {
			image: image.Reference(), want: sigstore.ErrNoKey, says: `key "release"`,
			change: func(r *policy.Requirement) { r.Keys[0].PEM = "nonsense" },
		},
		"no key": {image: image.Reference(), want: sigstore.ErrNoKey, change: func(r *policy.Requirement) { r.Keys = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			requirement := w.requirement()
			if c.change != nil {
				c.change(&requirement)
			}
			evidence, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), c.image, requirement)
			var refusal *sigstore.Refusal
			switch {
			case c.want == nil && err != nil:
				t.Error(err)
			case c.want == nil:
				if evidence.Key != "release" || evidence.Digest != image.Digest {
					t.Errorf("evidence %+v", evidence)
				}
			case !errors.Is(err, c.want) || !errors.As(err, &refusal) || errors.Is(err, sigstore.ErrUnknown):
				t.Errorf("got %v, want %v", err, c.want)
			case !strings.Contains(err.Error(), c.says):
				t.Errorf("got %v, want it to say %q", err, c.says)
			}
		})
	}
}

func TestEvidence(t *testing.T) {
	w := newWorld(t)
	image := w.attested(t, "shop", "a")
	got, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), image.Reference(), w.requirement())
	want := sigstore.Evidence{
		Digest: image.Digest, Key: "release", Source: "https://git.example.com/acme/shop", Commit: commit,
		Builder: sigstore.DefaultBuilder + "/runc-root", Run: "run-1",
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// What does not answer is neither a yes nor a no, is not asked again at once, and is believed when it is back.
func TestAnOutageIsUnknown(t *testing.T) {
	w := newWorld(t)
	image, unsigned := w.attested(t, "shop", "a"), w.image(t, "shop", "b")
	status := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
	}
	for name, answer := range map[string]http.HandlerFunc{
		"unavailable":  status(http.StatusServiceUnavailable),
		"unauthorized": status(http.StatusUnauthorized),
		"forbidden":    status(http.StatusForbidden),
		"too many":     status(http.StatusTooManyRequests),
		"no HTTP":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"silence":      func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			time := &clock{now: time.Unix(0, 0)}
			verifier := sigstore.NewVerifier(sigstore.VerifierOptions{Now: time.Now, Timeout: 300 * millisecond, Rest: 5 * second})
			open := w.shut(answer)
			for _, i := range []builder.Image{image, unsigned} {
				_, err := verifier.Verify(t.Context(), i.Reference(), w.requirement())
				var refusal *sigstore.Refusal
				if !errors.Is(err, sigstore.ErrUnknown) || errors.As(err, &refusal) {
					t.Errorf("got %v, want unknown", err)
				}
			}
			open()
			before := w.requests.Load()
			if _, err := verifier.Verify(t.Context(), image.Reference(), w.requirement()); !errors.Is(err, sigstore.ErrUnknown) || w.requests.Load() != before {
				t.Errorf("asked again at once: %v", err)
			}
			time.pass(5 * second)
			if _, err := verifier.Verify(t.Context(), image.Reference(), w.requirement()); err != nil {
				t.Error(err)
			}
			if _, err := verifier.Verify(t.Context(), unsigned.Reference(), w.requirement()); !errors.Is(err, sigstore.ErrUnsigned) {
				t.Error(err)
			}
		})
	}
}

const (
	millisecond = time.Millisecond
	second      = time.Second
)

func TestAnswersAreRemembered(t *testing.T) {
	w := newWorld(t)
	image, unsigned := w.attested(t, "shop", "a"), w.image(t, "shop", "b")
	time := &clock{now: time.Unix(0, 0)}
	verifier := sigstore.NewVerifier(sigstore.VerifierOptions{Now: time.Now, Again: 30 * second, Size: 2})
	asks := func(what string, want bool, image builder.Image, requirement policy.Requirement, cause error) {
		t.Helper()
		before := w.requests.Load()
		_, err := verifier.Verify(t.Context(), image.Reference(), requirement)
		if !errors.Is(err, cause) {
			t.Errorf("%s: %v, want %v", what, err, cause)
		}
		if asked := w.requests.Load() - before; (asked > 0) != want {
			t.Errorf("%s: %d requests", what, asked)
		}
	}
	before := w.requests.Load()
	asks("first", true, image, w.requirement(), nil)
	t.Logf("%d requests for signature and provenance", w.requests.Load()-before)
	time.pass(24 * 3600 * second)
	asks("a day later", false, image, w.requirement(), nil)
	elsewhere := image
	elsewhere.Repository = w.host + "/mirror"
	asks("the same digest elsewhere", false, elsewhere, w.requirement(), nil)
	other := w.requirement()
	other.Provenance.Builders = []string{"https://example.com/*"}
	asks("another requirement", true, image, other, sigstore.ErrOtherBuilder)

	asks("unsigned", true, unsigned, w.requirement(), sigstore.ErrUnsigned)
	asks("unsigned, at once", false, unsigned, w.requirement(), sigstore.ErrUnsigned)
	if err := w.signer(t, nil).Attest(t.Context(), subject(unsigned)); err != nil {
		t.Fatal(err)
	}
	asks("signed meanwhile, too early", false, unsigned, w.requirement(), sigstore.ErrUnsigned)
	time.pass(30 * second)
	asks("signed meanwhile", true, unsigned, w.requirement(), nil)
	asks("pushed out by two others", true, image, w.requirement(), nil)
}

// A registry that wants a login gets the one of the file as it is now.
func TestLogins(t *testing.T) {
	w := newWorld(t)
	image := w.attested(t, "shop", "a")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("agent:s3cret"))
	w.guard.Store(&basic)
	file := filepath.Join(t.TempDir(), "config.json")
	time := &clock{now: time.Unix(0, 0)}
	verifier := sigstore.NewVerifier(sigstore.VerifierOptions{Logins: sigstore.LoginsFile(file), Now: time.Now})
	for _, c := range []struct {
		content string
		ok      bool
	}{
		{"", false},
		{`{"auths":{"` + w.host + `":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("agent:wrong")) + `"}}}`, false},
		{`{"auths":{"` + w.host + `":{"auth":"s3cret"}}}`, false},
		{`{"auths":{},"credsStore":"desktop"}`, false},
		{`s3cret`, false},
		{`{"auths":{"` + w.host + `":{"auth":"` + strings.TrimPrefix(basic, "Basic ") + `"}}}`, true},
	} {
		if c.content != "" {
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		time.pass(10 * second)
		_, err := verifier.Verify(t.Context(), image.Reference(), w.requirement())
		if (err == nil) != c.ok || err != nil && !errors.Is(err, sigstore.ErrUnknown) {
			t.Errorf("%s: %v", c.content, err)
		}
		if strings.Contains(fmt.Sprint(err), "s3cret") {
			t.Errorf("printed: %v", err)
		}
	}
}
