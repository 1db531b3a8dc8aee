package sigstore_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// world is a registry, seen through a door that counts requests and can be shut.
type world struct {
	dir      string
	registry *cluster.Registry
	host     string // of the door
	requests atomic.Int64
	answer   atomic.Pointer[http.HandlerFunc] // instead of the registry's, where it is set
	guard    atomic.Pointer[string]           // the Authorization that is asked for, where it is set
	private  policy.Secret
	public   []byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	registry, err := cluster.StartRegistry(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registry.Close() })
	w.registry = registry
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry.Host()})
	door := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.requests.Add(1)
		if answer := w.answer.Load(); answer != nil {
			(*answer)(rw, r)
			return
		}
		if guard := w.guard.Load(); guard != nil && r.Header.Get("Authorization") != *guard {
			rw.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(door.Close)
	at, err := url.Parse(door.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.host = at.Host
	w.private, w.public = generate(t, policy.Secret{})
	return w
}

func generate(t *testing.T, password policy.Secret) (policy.Secret, []byte) {
	t.Helper()
	private, public, err := sigstore.GenerateKey(password)
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

// shut makes the registry answer otherwise until the returned function is called.
func (w *world) shut(answer http.HandlerFunc) (open func()) {
	w.answer.Store(&answer)
	return func() { w.answer.Store(nil) }
}

// image pushes a small Go program as an image whose digest depends on the variant.
func (w *world) image(t *testing.T, repository, variant string) builder.Image {
	t.Helper()
	reference, err := cluster.BuildImage(t.Context(), w.registry, cluster.ImageSpec{
		Binary: program, Repository: repository, Env: map[string]string{"VARIANT": variant},
	})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := name.NewDigest(reference)
	if err != nil {
		t.Fatal(err)
	}
	return builder.Image{
		Repository: w.host + "/" + repository, Digest: digest.DigestStr(),
		Revision: gitsource.Revision{URL: "https://git.example.com/acme/shop.git", Ref: "refs/heads/main", ID: commit},
	}
}

// subject is what a run loop would say of the image.
func subject(image builder.Image) sigstore.Subject {
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	return sigstore.Subject{
		Image: image, Job: "image",
		Run: builder.Run{
			ID: "run-1", Repo: builder.Repo{Name: "shop", URL: "https://git.example.com/acme/shop.git"}, Revision: image.Revision,
			Pipeline: "shop", Trace: "4bf92f3577b34da6a3ce929d0e0e4736", Created: start,
			Trigger: builder.Trigger{Kind: "push", Actor: "ada", Delivery: "d-1", ReceivedAt: start},
			Jobs: []builder.Job{
				{Name: "test", Tier: "runc-root"},
				{Name: "image", Tier: "runc-root", Attempt: 1, Worker: "w-1", Started: start.Add(time.Minute), Finished: start.Add(2 * time.Minute)},
			},
		},
		Base: "registry.example.com/base@sha256:" + commit + commit[:24],
	}
}

func (w *world) signer(t *testing.T, failpoint func(string)) *sigstore.Signer {
	t.Helper()
	signer, err := sigstore.NewSigner(sigstore.SignerOptions{Key: w.private, Version: "test", Failpoint: failpoint})
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// attested is an image with all that Attest attaches.
func (w *world) attested(t *testing.T, repository, variant string) builder.Image {
	t.Helper()
	image := w.image(t, repository, variant)
	if err := w.signer(t, nil).Attest(t.Context(), subject(image)); err != nil {
		t.Fatal(err)
	}
	return image
}

// requirement asks for a signature by the world's key and for provenance.
func (w *world) requirement() policy.Requirement {
	return policy.Requirement{
		Policy: "shop", Keys: []policy.Key{{Name: "release", PEM: string(w.public)}},
		Provenance: &policy.Provenance{Sources: []string{"https://git.example.com/acme/*"}, Builders: []string{sigstore.DefaultBuilder + "/runc-*"}},
	}
}

// keyFile writes a public key for the cosign command.
func keyFile(t *testing.T, public []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(file, public, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// attachment is one manifest that refers to an image, with its bundle.
type attachment struct {
	descriptor v1.Descriptor
	manifest   v1.Manifest
	bundle     []byte
}

func (w *world) attachments(t *testing.T, image builder.Image) []attachment {
	t.Helper()
	reference, err := name.NewDigest(image.Reference())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(reference)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var all []attachment
	for _, d := range list.Manifests {
		got, err := remote.Get(reference.Context().Digest(d.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		a := attachment{descriptor: d}
		if err := json.Unmarshal(got.Manifest, &a.manifest); err != nil {
			t.Fatal(err)
		}
		a.bundle = w.blob(t, reference.Context(), a.manifest.Layers[0].Digest)
		all = append(all, a)
	}
	return all
}

func (w *world) blob(t *testing.T, repository name.Repository, digest v1.Hash) []byte {
	t.Helper()
	layer, err := remote.Layer(repository.Digest(digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := layer.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// attach pushes a bundle that refers to image, as an attacker who may push would.
func (w *world) attach(t *testing.T, image builder.Image, from attachment, bundle []byte) {
	t.Helper()
	repository, err := name.NewRepository(image.Repository)
	if err != nil {
		t.Fatal(err)
	}
	layer := static.NewLayer(bundle, from.manifest.Layers[0].MediaType)
	empty := static.NewLayer([]byte("{}"), from.manifest.Config.MediaType)
	for _, l := range []v1.Layer{layer, empty} {
		if err := remote.WriteLayer(repository, l); err != nil {
			t.Fatal(err)
		}
	}
	described, err := remote.Head(repository.Digest(image.Digest))
	if err != nil {
		t.Fatal(err)
	}
	manifest := from.manifest
	manifest.Subject = &v1.Descriptor{MediaType: described.MediaType, Digest: described.Digest, Size: described.Size}
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest.Layers = []v1.Descriptor{{MediaType: from.manifest.Layers[0].MediaType, Digest: digest, Size: int64(len(bundle))}}
	encoded, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	sum, _, err := v1.SHA256(bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Put(repository.Digest(sum.String()), raw(encoded)); err != nil {
		t.Fatal(err)
	}
}

type raw []byte

func (r raw) RawManifest() ([]byte, error)        { return r, nil }
func (r raw) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
