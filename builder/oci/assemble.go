package oci

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	nonroot     = "65532:65532"
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// base is what images are built upon, one for each platform; nil images stand for none.
type base struct {
	reference string // REPOSITORY@sha256:..., empty for none
	images    []v1.Image
}

// base asks for the base. A tag is replaced by what it stands for now, and that is what gets recorded.
func (r *Registry) base(ctx context.Context, reference string, platforms []v1.Platform) (base, error) {
	b := base{images: make([]v1.Image, len(platforms))}
	if reference == "" {
		return b, nil
	}
	parsed, err := r.reference(reference)
	if err != nil {
		return base{}, fmt.Errorf("%w: base: %w", ErrRefused, err)
	}
	host := parsed.Context().RegistryStr()
	described, err := remote.Get(parsed, r.remote(ctx)...)
	if err != nil {
		return base{}, r.failed("pull base", reference, host, err)
	}
	b.reference = parsed.Context().Name() + "@" + described.Digest.String()
	for i, p := range platforms {
		if b.images[i], err = forPlatform(described, p); err != nil {
			return base{}, r.failed("use as base", reference, host, err)
		}
	}
	return b, nil
}

// assemble makes the image of one platform.
func (r *Registry) assemble(o order, p program, upon v1.Image, scratch string) (v1.Image, error) {
	config := &v1.ConfigFile{}
	var layers []v1.Layer
	if upon == nil {
		own, err := baseLayer(r.certificates)
		if err != nil {
			return nil, err
		}
		layers = append(layers, own)
		config.History = []v1.History{{Created: v1.Time{Time: o.Time.UTC()}, CreatedBy: "slipway go-image: user, certificates"}}
	} else {
		below, err := configOf(upon)
		if err != nil {
			return nil, fmt.Errorf("base: %w", err)
		}
		below = below.DeepCopy()
		config.Config, config.History = below.Config, below.History // the rest says where and by whom the base was built
		if layers, err = upon.Layers(); err != nil {
			return nil, fmt.Errorf("base: %w", err)
		}
	}
	top, err := programLayer(p, scratch)
	if err != nil {
		return nil, err
	}
	layers = append(layers, top)
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		mediaType, err := ociType(l)
		if err != nil {
			return nil, fmt.Errorf("%w: base: %w", ErrRefused, err)
		}
		if image, err = mutate.Append(image, mutate.Addendum{Layer: l, MediaType: mediaType}); err != nil {
			return nil, fmt.Errorf("base: %w", err)
		}
	}
	appended, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	config.RootFS = appended.RootFS
	return mutate.ConfigFile(image, configure(o, p, config))
}

// configure makes the config of a base, or an empty one, that of the image: each field that says when, where or by whom it
// was built is set or emptied.
func configure(o order, p program, config *v1.ConfigFile) *v1.ConfigFile {
	created := v1.Time{Time: o.Time.UTC()}
	config.OS, config.Architecture, config.Variant = p.platform.OS, p.platform.Architecture, p.platform.Variant
	config.Created = created
	config.History = append(config.History, v1.History{Created: created, CreatedBy: "slipway go-image: /app/" + p.name})

	c := &config.Config
	c.Entrypoint, c.Cmd = []string{"/app/" + p.name}, nil
	c.Image, c.Hostname = "", ""
	c.Healthcheck, c.OnBuild = nil, nil
	if user, _, _ := strings.Cut(c.User, ":"); user == "" || user == "0" || user == "root" {
		c.User = nonroot
	}
	c.WorkingDir = valueOr(c.WorkingDir, "/")
	if !slices.ContainsFunc(c.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		c.Env = append(c.Env, defaultPath)
	}
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.DeleteFunc(labels, func(key, _ string) bool { return strings.HasPrefix(key, "org.opencontainers.image.") }) // those of the base speak of it
	maps.Copy(labels, o.labels)
	labels["org.opencontainers.image.source"] = o.Revision.URL
	labels["org.opencontainers.image.revision"] = string(o.Revision.ID)
	labels["org.opencontainers.image.created"] = o.Time.UTC().Format("2006-01-02T15:04:05Z")
	c.Labels = labels
	return config
}

// ociType is the OCI name of a layer's format; the bytes are the same.
func ociType(l v1.Layer) (types.MediaType, error) {
	mediaType, err := l.MediaType()
	if err != nil {
		return "", err
	}
	switch mediaType {
	case types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer:
		return mediaType, nil
	case types.DockerLayer:
		return types.OCILayer, nil
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer, nil
	default:
		return "", fmt.Errorf("a layer of type %s may not be copied", mediaType)
	}
}
