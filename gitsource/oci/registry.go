package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	registryhttp "github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/slipway-cd/slipway/gitsource"
)

// Media types of layers that are unpacked, the preferred first: of Flux, of Helm, and what `oras push` and image builders
// write.
const (
	mediaFlux  = "application/vnd.cncf.flux.content.v1.tar+gzip"
	mediaChart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

var layerTypes = []struct {
	mediaType string
	gzipped   bool
}{
	{mediaFlux, true},
	{mediaChart, true},
	{"application/vnd.oci.image.layer.v1.tar+gzip", true},
	{"application/vnd.docker.image.rootfs.diff.tar.gzip", true},
	{"application/vnd.oci.image.layer.v1.tar", false},
}

// repository is where the artifact is.
func (a *Artifact) repository() (name.Repository, error) {
	repository, err := name.NewRepository(strings.TrimPrefix(a.place(), "oci://"), name.StrictValidation)
	if err != nil {
		return name.Repository{}, fmt.Errorf("not the name of a repository: %w", err)
	}
	return repository, nil
}

// puller returns the client of one operation: clients of the library remember failures, so none is kept.
func (a *Artifact) puller(ctx context.Context) (*remote.Puller, error) {
	return remote.NewPuller(
		remote.WithContext(ctx), remote.WithAuthFromKeychain(a), remote.WithTransport(a.store.client),
		remote.WithJobs(2), remote.WithUserAgent("slipway"),
		// A loop that retries asks; retries of the client below it would only hold it up.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	)
}

// resolve asks the registry for the digest. Where the source names one there is nothing to ask.
func (a *Artifact) resolve(ctx context.Context) (ref string, id gitsource.ObjectID, err error) {
	if a.digest != "" && a.allowed == nil {
		return "", a.digest, nil
	}
	repository, err := a.repository()
	if err != nil {
		return "", "", err
	}
	puller, err := a.puller(ctx)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", a.place(), err)
	}
	ref = a.source.Tag
	if a.allowed != nil {
		if ref, err = a.newest(ctx, puller, repository); err != nil {
			return "", "", err
		}
	}
	id, err = a.digestOf(ctx, puller, repository.Tag(ref))
	if err != nil {
		return "", "", a.failed(a.place()+":"+ref, err)
	}
	if a.digest != "" && a.digest != id {
		return "", "", a.otherDigest(ref, id)
	}
	return ref, id, nil
}

func (a *Artifact) otherDigest(ref string, id gitsource.ObjectID) error {
	return &ContentError{Subject: a.place() + ":" + ref, Cause: fmt.Errorf("has the digest sha256:%s, and sha256:%s is asked for", id, a.digest)}
}

// digestOf asks with HEAD, and with GET where a registry does not answer that properly.
func (a *Artifact) digestOf(ctx context.Context, puller *remote.Puller, tag name.Tag) (gitsource.ObjectID, error) {
	head, err := puller.Head(ctx, tag)
	var answer *registryhttp.Error
	if err != nil && (!errors.As(err, &answer) || answer.StatusCode == http.StatusMethodNotAllowed) && !silent(err) {
		var whole *remote.Descriptor
		if whole, err = puller.Get(ctx, tag); err == nil {
			head = &whole.Descriptor
		}
	}
	if err != nil {
		return "", err
	}
	if head.Digest.Algorithm != "sha256" {
		return "", fmt.Errorf("digest %s: only sha256 is read", head.Digest)
	}
	return gitsource.ParseObjectID(head.Digest.Hex)
}

// newest returns the tag of the highest version in the range.
func (a *Artifact) newest(ctx context.Context, puller *remote.Puller, repository name.Repository) (string, error) {
	lister, err := puller.Lister(ctx, repository)
	if err != nil {
		return "", a.failed(a.place(), err)
	}
	best := candidate{}
	total := int64(0)
	for lister.HasNext() {
		page, err := lister.Next(ctx)
		if err != nil {
			return "", a.failed(a.place(), err)
		}
		for _, tag := range page.Tags {
			if total += int64(len(tag)) + 1; total > a.store.limits.Index {
				return "", &ContentError{Subject: a.place(), Cause: fmt.Errorf("more than %d bytes of tags: %w", a.store.limits.Index, ErrLimit)}
			}
			text := tag
			if a.source.Chart != "" {
				text = strings.ReplaceAll(tag, "_", "+") // tags cannot hold the plus of a version, so Helm writes it so
			}
			best = best.or(a.allowed, tag, text)
		}
	}
	if best.version == nil {
		return "", fmt.Errorf("%s: no tag is a version in %q: %w", a.place(), a.source.Range, gitsource.ErrNotFound)
	}
	return best.ref, nil
}

// candidate is the highest version so far; the zero value is none.
type candidate struct {
	version *semver.Version
	ref     string
}

// or returns the higher of c and the version that text is, if it is one that is allowed.
func (c candidate) or(allowed *semver.Constraints, ref, text string) candidate {
	version, err := semver.StrictNewVersion(strings.TrimPrefix(text, "v"))
	if err != nil || !allowed.Check(version) {
		return c
	}
	switch {
	case c.version == nil || c.version.LessThan(version):
	case version.LessThan(c.version), ref <= c.ref: // equal but for build metadata or a leading v: one of them, always the same
		return c
	}
	return candidate{version: version, ref: ref}
}

// pull brings one manifest and its layer here.
func (a *Artifact) pull(ctx context.Context, id gitsource.ObjectID) (*tree, error) {
	repository, err := a.repository()
	if err != nil {
		return nil, err
	}
	puller, err := a.puller(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.place(), err)
	}
	described, err := puller.Get(ctx, repository.Digest("sha256:"+string(id)))
	if err != nil {
		return nil, a.failed(a.subject(id), err)
	}
	layer, gzipped, err := a.layerOf(described)
	if err != nil {
		return nil, &ContentError{Subject: a.subject(id), Cause: err}
	}
	content, err := puller.Layer(ctx, repository.Digest(layer.Digest.String()))
	if err != nil {
		return nil, a.failed(a.subject(id), err)
	}
	reader, err := content.Compressed()
	if err != nil {
		return nil, a.failed(a.subject(id), err)
	}
	defer func() { _ = reader.Close() }()
	made, err := a.unpack(reader, gzipped, string(layer.MediaType) == mediaChart, id)
	if err != nil && !errors.As(err, new(*ContentError)) {
		return nil, a.failed(a.subject(id), err)
	}
	return made, err
}

// layerOf chooses the layer that holds the files.
func (a *Artifact) layerOf(described *remote.Descriptor) (v1.Descriptor, bool, error) {
	if described.MediaType.IsIndex() {
		return v1.Descriptor{}, false, errors.New("is an index of several artifacts (name one of them by its digest)")
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(described.Manifest, &manifest); err != nil {
		return v1.Descriptor{}, false, fmt.Errorf("not an OCI manifest: %w", err)
	}
	for _, wanted := range layerTypes {
		of := func(layer v1.Descriptor) bool { return string(layer.MediaType) == wanted.mediaType }
		at := slices.IndexFunc(manifest.Layers, of)
		switch {
		case at < 0 || a.source.Chart != "" && wanted.mediaType != mediaChart:
			continue
		case slices.ContainsFunc(manifest.Layers[at+1:], of):
			return v1.Descriptor{}, false, fmt.Errorf("several layers of type %s (want one, with all files)", wanted.mediaType)
		case manifest.Layers[at].Size > a.store.limits.Archive:
			return v1.Descriptor{}, false, fmt.Errorf("layer of %d bytes, more than %d: %w", manifest.Layers[at].Size, a.store.limits.Archive, ErrLimit)
		}
		return manifest.Layers[at], wanted.gzipped, nil
	}
	var has []string
	for _, layer := range manifest.Layers[:min(len(manifest.Layers), 5)] {
		has = append(has, brief(string(layer.MediaType)))
	}
	if a.source.Chart != "" {
		return v1.Descriptor{}, false, fmt.Errorf("not a Helm chart: its layers are of type %q", has)
	}
	return v1.Descriptor{}, false, fmt.Errorf("no layer that is a tar archive: they are of type %q (want %s, say)", has, mediaFlux)
}

// failed says what became of a request: not there, not allowed, or nobody knows.
func (a *Artifact) failed(subject string, err error) error {
	var answer *registryhttp.Error
	wrapped := fmt.Errorf("%s: %w", subject, err)
	switch {
	case errors.Is(err, ErrLimit):
		return wrapped
	case !errors.As(err, &answer):
		if silent(err) {
			return unreachable{wrapped}
		}
		return wrapped
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w: %w", subject, gitsource.ErrNotFound, err)
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s: the registry does not let us in (check the Secret that spec.secretRef names, if any): %w", subject, err)
	case answer.StatusCode >= 500, answer.StatusCode == http.StatusTooManyRequests:
		return unreachable{wrapped}
	}
	return wrapped
}
