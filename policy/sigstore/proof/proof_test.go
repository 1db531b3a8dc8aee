package proof_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
	"github.com/slipway-cd/slipway/policy/sigstore/proof"
)

var statements = []string{sigstore.PredicateSBOM, sigstore.PredicateProvenance, sigstore.PredicateSignature}

// bench is a registry behind a door that can falsify what it answers, and a signer.
type bench struct {
	registry *cluster.Registry
	host     string
	falsify  atomic.Pointer[func(path string, body []byte) []byte]
	down     atomic.Bool
	private  policy.Secret
	public   []byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{}
	var err error
	if b.registry, err = cluster.StartRegistry(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.registry.Close() })
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: b.registry.Host()})
	proxy.ModifyResponse = func(r *http.Response) error {
		f := b.falsify.Load()
		if f == nil {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(strings.NewReader(string((*f)(r.Request.URL.Path, body))))
		return nil
	}
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(door.Close)
	b.host = strings.TrimPrefix(door.URL, "http://")
	if b.private, b.public, err = sigstore.GenerateKey(policy.Secret{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// image pushes an image, and attests it up to a failpoint; empty for all of it.
func (b *bench) image(t *testing.T, variant, until string) string {
	t.Helper()
	reference, err := cluster.BuildImage(t.Context(), b.registry, cluster.ImageSpec{
		Package: filepath.Join("..", "..", "..", "e2e", "cluster", "testdata", "web"), Repository: "shop", Env: map[string]string{"VARIANT": variant},
	})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := name.NewDigest(reference)
	if err != nil {
		t.Fatal(err)
	}
	type stopped struct{}
	signer, err := sigstore.NewSigner(sigstore.SignerOptions{Key: b.private, Version: "test", Failpoint: func(at string) {
		if at == until {
			panic(stopped{})
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	revision := gitsource.Revision{URL: "https://git.example/shop.git", Ref: "refs/heads/main", ID: "0123456789abcdef0123456789abcdef01234567"}
	image := builder.Image{Repository: b.host + "/shop", Digest: digest.DigestStr(), Revision: revision}
	func() {
		defer func() {
			if cause := recover(); cause != nil && cause != (stopped{}) {
				panic(cause)
			}
		}()
		err = signer.Attest(t.Context(), sigstore.Subject{
			Image: image, Job: "image",
			Run: builder.Run{
				ID: "run-1", Repo: builder.Repo{Name: "shop", URL: revision.URL}, Revision: revision, Pipeline: "shop", Trace: "4bf92f3577b34da6a3ce929d0e0e4736",
				Created: start, Trigger: builder.Trigger{Kind: "push", Actor: "ada", Delivery: "d-1", ReceivedAt: start},
				Jobs: []builder.Job{{Name: "image", Tier: "runc-root", Attempt: 1, Worker: "w-1", Started: start, Finished: start.Add(time.Minute)}},
			},
		})
	}()
	if err != nil {
		t.Fatal(err)
	}
	return image.Reference()
}

func TestCheck(t *testing.T) {
	b := newBench(t)
	whole := b.image(t, "whole", "")
	unsigned := b.image(t, "unsigned", sigstore.FailpointSignature)
	bare := b.image(t, "bare", sigstore.FailpointSBOM)
	_, stranger, err := sigstore.GenerateKey(policy.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		image   string
		key     []byte
		falsify func(path string, body []byte) []byte
		unknown bool   // nobody can say
		want    string // of the error; empty for none
	}{
		"all statements":         {image: whole},
		"signing was cut off":    {image: unsigned, want: "no statement of type " + sigstore.PredicateSignature},
		"nothing attached":       {image: bare, want: "no valid bundles"},
		"another key":            {image: whole, key: stranger, want: "not accepted by cosign"},
		"a changed signature":    {image: whole, falsify: changeSignatures, want: "not accepted by cosign"},
		"the registry is down":   {image: whole, unknown: true, want: "cannot be read"},
		"a tag instead":          {image: b.host + "/shop:latest", unknown: true, want: "want REPOSITORY@sha256:..."},
		"statements of a digest": {image: unsigned[:strings.Index(unsigned, "@")] + bare[strings.Index(bare, "@"):], want: "no valid bundles"},
	} {
		t.Run(title, func(t *testing.T) {
			key := b.public
			if c.key != nil {
				key = c.key
			}
			p, err := proof.New(proof.Options{PublicKey: key, Statements: statements})
			if err != nil {
				t.Fatal(err)
			}
			if c.falsify != nil {
				b.falsify.Store(&c.falsify)
				defer b.falsify.Store(nil)
			}
			b.down.Store(title == "the registry is down")
			defer b.down.Store(false)
			err = p.Check(t.Context(), c.image)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, proof.ErrUnproved) == c.unknown):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// changeSignatures changes one byte of each envelope's signature; the registry client does not look at blobs' digests here.
func changeSignatures(_ string, body []byte) []byte {
	var bundle map[string]any
	if json.Unmarshal(body, &bundle) != nil {
		return body
	}
	envelope, is := bundle["dsseEnvelope"].(map[string]any)
	if !is {
		return body
	}
	for _, s := range envelope["signatures"].([]any) {
		s := s.(map[string]any)
		text := []byte(s["sig"].(string))
		text[20] ^= 1
		s["sig"] = string(text)
	}
	changed, err := json.Marshal(bundle)
	if err != nil {
		return body
	}
	return changed
}

func TestNewRefuses(t *testing.T) {
	for title, o := range map[string]proof.Options{
		"no key":        {Statements: statements},
		"no statements": {PublicKey: newBench(t).public},
	} {
		if _, err := proof.New(o); err == nil {
			t.Errorf("%s: accepted", title)
		}
	}
}
