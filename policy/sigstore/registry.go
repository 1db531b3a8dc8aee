package sigstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	registryhttp "github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Limits on what is read of a registry for one image.
const (
	maxBundle    = 16 << 20 // bytes; the SBOM of a large program is some hundred KB
	maxReferrers = 64       // bundles that are looked at
)

// repository is one image in a registry. Registries on loopback are spoken to over plain http.
type repository struct {
	image   name.Digest
	digest  v1.Hash
	options []remote.Option
	puller  *remote.Puller
}

// newRepository does no request. It lives for one call: its client remembers failures.
func newRepository(ctx context.Context, reference string, logins Logins, client http.RoundTripper, more ...remote.Option) (*repository, error) {
	image, err := name.NewDigest(reference)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w (want REPOSITORY@sha256:...)", reference, err)
	}
	digest, err := v1.NewHash(image.DigestStr())
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	options := append([]remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(logins), remote.WithTransport(client), remote.WithJobs(2)}, more...)
	puller, err := remote.NewPuller(options...)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	return &repository{image: image, digest: digest, options: append(options, remote.Reuse(puller)), puller: puller}, nil
}

// found is a bundle that is attached to the image.
type found struct {
	hint     string
	envelope []byte
}

// referrers lists the bundles that refer to the image, in the order of the registry. An error means that nobody knows.
func (r *repository) referrers() ([]v1.Descriptor, error) {
	index, err := remote.Referrers(r.image, r.options...)
	if err != nil {
		return nil, fmt.Errorf("image %s: what refers to it cannot be listed: %w", r.image, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("image %s: what refers to it cannot be read: %w", r.image, err)
	}
	var bundles []v1.Descriptor
	for _, d := range manifest.Manifests {
		if d.ArtifactType == "" || strings.HasPrefix(d.ArtifactType, "application/vnd.dev.sigstore.bundle") {
			bundles = append(bundles, d)
		}
	}
	return bundles, nil
}

// bundle reads one of them. What is stored wrongly is ErrChanged; any other error means that nobody knows.
func (r *repository) bundle(ctx context.Context, digest v1.Hash) (found, error) {
	described, err := r.puller.Get(ctx, r.image.Context().Digest(digest.String()))
	if err != nil {
		return found{}, content(err)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(described.Manifest, &manifest); err != nil || len(manifest.Layers) != 1 {
		return found{}, ErrChanged
	}
	encoded, err := r.blob(ctx, manifest.Layers[0].Digest)
	if err != nil {
		return found{}, err
	}
	var b bundle
	if err := json.Unmarshal(encoded, &b); err != nil || len(b.Envelope) == 0 {
		return found{}, ErrChanged
	}
	return found{hint: b.VerificationMaterial.PublicKey.Hint, envelope: b.Envelope}, nil
}

// blob reads a blob whose digest the client checks.
func (r *repository) blob(ctx context.Context, digest v1.Hash) ([]byte, error) {
	layer, err := r.puller.Layer(ctx, r.image.Context().Digest(digest.String()))
	if err != nil {
		return nil, content(err)
	}
	reader, err := layer.Compressed()
	if err != nil {
		return nil, content(err)
	}
	defer reader.Close()
	encoded, err := io.ReadAll(io.LimitReader(reader, maxBundle+1))
	if err != nil {
		return nil, content(err)
	}
	if len(encoded) > maxBundle {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrChanged, maxBundle)
	}
	return encoded, nil
}

// content tells an answer that is wrong, which is ErrChanged, from none, which stays what it was.
func content(err error) error {
	var answer *registryhttp.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: listed and not there", ErrChanged)
	case errors.As(err, &answer), outage(err):
		return err
	}
	return fmt.Errorf("%w: %w", ErrChanged, err)
}

// outage reports whether err says that there was no whole answer.
func outage(err error) bool {
	var network interface{ Timeout() bool } // net.Error and url.Error
	return errors.As(err, &network) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// attach pushes the blobs and then the manifest of a referrer. What is there already is not sent again.
func (r *repository) attach(ctx context.Context, item referrer) error {
	options := append(r.options[:len(r.options):len(r.options)], remote.WithContext(ctx))
	for i, b := range item.blobs {
		mediaType := types.MediaType(emptyMediaType)
		if i == 1 {
			mediaType = bundleMediaType
		}
		if err := remote.WriteLayer(r.image.Context(), static.NewLayer(b.content, mediaType), options...); err != nil {
			return fmt.Errorf("image %s: attestation cannot be pushed: %w", r.image, err)
		}
	}
	if err := remote.Put(r.image.Context().Digest(item.digest.String()), item, options...); err != nil {
		return fmt.Errorf("image %s: attestation cannot be pushed: %w", r.image, err)
	}
	return nil
}
