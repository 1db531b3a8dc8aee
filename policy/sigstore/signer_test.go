package sigstore_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// kinds lists the types of what is attached, sorted.
func (w *world) kinds(t *testing.T, image builder.Image) []string {
	t.Helper()
	kinds := []string{}
	for _, a := range w.attachments(t, image) {
		kinds = append(kinds, a.manifest.Annotations["dev.sigstore.bundle.predicateType"])
	}
	slices.Sort(kinds)
	return kinds
}

func allKinds() []string {
	return []string{sigstore.PredicateSignature, sigstore.PredicateProvenance, sigstore.PredicateSBOM}
}

func TestAttestAddsNothingTwice(t *testing.T) {
	w := newWorld(t)
	image := w.attested(t, "shop", "a")
	if err := w.signer(t, nil).Attest(t.Context(), subject(image)); err != nil {
		t.Fatal(err)
	}
	if kinds := w.kinds(t, image); !slices.Equal(kinds, allKinds()) {
		t.Errorf("attached: %q", kinds)
	}
	// The same digest from another run: its own provenance, and the rest stays.
	again := subject(image)
	again.Run.ID = "run-2"
	if err := w.signer(t, nil).Attest(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if kinds := w.kinds(t, image); len(kinds) != 4 || kinds[1] != sigstore.PredicateProvenance || kinds[2] != sigstore.PredicateProvenance {
		t.Errorf("attached after another run: %q", kinds)
	}
}

// A process that ends between two writes leaves an image that is not signed, and the next one completes it.
func TestAttestGoesOnWhereItEnded(t *testing.T) {
	w := newWorld(t)
	for i, point := range []string{sigstore.FailpointSBOM, sigstore.FailpointProvenance, sigstore.FailpointSignature} {
		t.Run(point, func(t *testing.T) {
			image := w.image(t, "shop", point)
			func() {
				defer func() { _ = recover() }()
				err := w.signer(t, func(name string) {
					if name == point {
						panic("killed")
					}
				}).Attest(t.Context(), subject(image))
				t.Errorf("went past %s: %v", point, err)
			}()
			if kinds := w.kinds(t, image); len(kinds) != i || slices.Contains(kinds, sigstore.PredicateSignature) {
				t.Errorf("attached when it ended: %q", kinds)
			}
			if _, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), image.Reference(), w.requirement()); err == nil {
				t.Error("accepted half attested")
			}
			if err := w.signer(t, nil).Attest(t.Context(), subject(image)); err != nil {
				t.Fatal(err)
			}
			if kinds := w.kinds(t, image); !slices.Equal(kinds, allKinds()) {
				t.Errorf("attached at the end: %q", kinds)
			}
		})
	}
}

// Two servers that attest the same job write the same bytes.
func TestAttestTwiceAtOnce(t *testing.T) {
	w := newWorld(t)
	image := w.image(t, "shop", "a")
	var both sync.WaitGroup
	for range 2 {
		signer := w.signer(t, nil)
		both.Go(func() {
			if err := signer.Attest(t.Context(), subject(image)); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if kinds := w.kinds(t, image); !slices.Equal(kinds, allKinds()) {
		t.Errorf("attached: %q", kinds)
	}
}

// An index is attested as such; its SBOM tells of each platform.
func TestAttestAnIndex(t *testing.T) {
	w := newWorld(t)
	repository, err := name.NewRepository(w.host + "/shop")
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range []string{"amd64", "arm64"} {
		image, err := remote.Image(repository.Digest(w.image(t, "shop", platform).Digest))
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: platform}}})
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(repository.Digest(digest.String()), index); err != nil {
		t.Fatal(err)
	}
	image := builder.Image{Repository: w.host + "/shop", Digest: digest.String(), Revision: gitsource.Revision{Ref: "refs/heads/main", ID: commit}}
	if err := w.signer(t, nil).Attest(t.Context(), subject(image)); err != nil {
		t.Fatal(err)
	}
	for what, err := range rejects(t, image, keyFile(t, w.public)) {
		t.Errorf("%s: %v", what, err)
	}
	if _, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), image.Reference(), w.requirement()); err != nil {
		t.Error(err)
	}
}

// A registry without the referrers API: the list is behind a tag.
func TestAttestWithoutReferrersAPI(t *testing.T) {
	w := newWorld(t)
	plain := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(plain.Close)
	image := w.image(t, "shop", "a")
	from, err := name.NewDigest(image.Reference())
	if err != nil {
		t.Fatal(err)
	}
	content, err := remote.Image(from)
	if err != nil {
		t.Fatal(err)
	}
	image.Repository = strings.TrimPrefix(plain.URL, "http://") + "/shop"
	to, err := name.NewDigest(image.Reference())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, content); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.signer(t, nil).Attest(t.Context(), subject(image)); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range rejects(t, image, keyFile(t, w.public)) {
		t.Errorf("%s: %v", what, err)
	}
	if _, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), image.Reference(), w.requirement()); err != nil {
		t.Error(err)
	}
	if n := len(w.attachments(t, image)); n != 3 {
		t.Errorf("%d bundles are attached", n)
	}
}

func TestAttestRefusesWhatItCannotSay(t *testing.T) {
	w := newWorld(t)
	image := w.image(t, "shop", "a")
	for name, c := range map[string]struct {
		change func(*sigstore.Subject)
		want   string
	}{
		"no such job":      {func(s *sigstore.Subject) { s.Job = "deploy" }, `run run-1 has no job "deploy"`},
		"unknown tier":     {func(s *sigstore.Subject) { s.Job, s.Run.Jobs = "image", []builder.Job{{Name: "image"}} }, "does not say how it was isolated"},
		"other commit":     {func(s *sigstore.Subject) { s.Image.Revision.ID = gitsource.ObjectID("f" + commit[1:]) }, "built from f123456789ab, and run run-1 is of 0123456789ab"},
		"base by tag":      {func(s *sigstore.Subject) { s.Base = "alpine:3" }, "base alpine:3 is not named by its digest"},
		"no such image":    {func(s *sigstore.Subject) { s.Image.Digest = "sha256:" + commit + commit[:24] }, "404"},
		"image by no hash": {func(s *sigstore.Subject) { s.Image.Digest = "latest" }, "want REPOSITORY@sha256:..."},
	} {
		t.Run(name, func(t *testing.T) {
			s := subject(image)
			c.change(&s)
			err := w.signer(t, nil).Attest(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, sigstore.ErrUnattestable) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	open := w.shut(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
	if err := w.signer(t, nil).Attest(t.Context(), subject(image)); err == nil || errors.Is(err, sigstore.ErrUnattestable) {
		t.Errorf("an outage: %v", err)
	}
	open()
	if kinds := w.kinds(t, image); len(kinds) != 0 {
		t.Errorf("attached: %q", kinds)
	}
}

func TestKeys(t *testing.T) {
	password := policy.NewSecret("correct horse")
	encrypted, _ := generate(t, password)
	plain, _ := generate(t, policy.Secret{})
	if !strings.HasPrefix(encrypted.Reveal(), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----") {
		t.Errorf("encrypted key begins %.50q", encrypted.Reveal())
	}
	for name, c := range map[string]struct {
		key, password policy.Secret
		ok            bool
	}{
		"encrypted":        {encrypted, password, true},
		"plain":            {plain, policy.Secret{}, true},
		"wrong password":   {encrypted, policy.NewSecret("hunter2"), false},
		"missing password": {encrypted, policy.Secret{}, false},
		"no key":           {policy.Secret{}, policy.Secret{}, false},
		"not a key":        {policy.NewSecret("hunter2"), policy.Secret{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := sigstore.NewSigner(sigstore.SignerOptions{Key: c.key, Password: c.password})
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			for _, printed := range []string{fmt.Sprint(err), fmt.Sprintf("%+v %#v", sigstore.SignerOptions{Key: c.key, Password: c.password}, c.key)} {
				if strings.Contains(printed, "hunter2") || strings.Contains(printed, "correct horse") || strings.Contains(printed, "PRIVATE KEY-----") {
					t.Errorf("printed: %s", printed)
				}
			}
			if c.ok && signer == nil {
				t.Error("no signer")
			}
		})
	}
}
