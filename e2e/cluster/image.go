package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ImageSpec describes an image of one Go program.
type ImageSpec struct {
	Package    string            // folder of a Go main package to compile
	Binary     string            // or a static Linux program that is there already
	Repository string            // name in the registry, such as "shop"
	Tag        string            // default "latest"
	Env        map[string]string // environment in the image
	Labels     map[string]string // labels in the image's configuration; see [BehaviourLabel]
	Args       []string          // arguments after the program
}

// BuildImage compiles the program statically if it is not there, pushes a scratch image with it, and returns
// HOST/REPOSITORY@DIGEST. Equal inputs give the equal digest. The program is /app, runs as user 65534 and may write to /tmp.
func BuildImage(ctx context.Context, r *Registry, spec ImageSpec) (digestRef string, err error) {
	if spec.Tag == "" {
		spec.Tag = "latest"
	}
	ref, err := name.NewTag(r.Host() + "/" + spec.Repository + ":" + spec.Tag)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", spec.Repository, err)
	}
	if (spec.Package == "") == (spec.Binary == "") {
		return "", fmt.Errorf("image %s: needs either a package or a binary", ref)
	}
	if _, err := behaviourOf(spec.Labels); err != nil {
		return "", fmt.Errorf("image %s: %w", ref, err)
	}
	program := spec.Binary
	if spec.Package != "" {
		dir, err := os.MkdirTemp("", "slipway-image-")
		if err != nil {
			return "", fmt.Errorf("image %s: %w", ref, err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "app")
		if err := compile(ctx, spec.Package, program); err != nil {
			return "", fmt.Errorf("image %s: %w", ref, err)
		}
	}
	img, err := programImage(program, spec)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", ref, err)
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("image %s: push: %w", ref, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("image %s: %w", ref, err)
	}
	return ref.Context().Digest(digest.String()).Name(), nil
}

// compile builds the main package in a folder as a static program; equal sources give equal bytes.
func compile(ctx context.Context, folder, program string) error {
	quiet := cache{log: io.Discard}
	return quiet.goCommand(ctx, folder, folder, []string{"GOOS=linux"}, "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", program, ".")
}

// programImage is a scratch image of one static program.
func programImage(program string, spec ImageSpec) (v1.Image, error) {
	body, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
		return nil, err
	}
	if err := w.WriteHeader(&tar.Header{Name: "app", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(body))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: []string{"/app"},
		Cmd:        spec.Args,
		User:       "65534:65534",
		WorkingDir: "/tmp",
		Env:        []string{"PATH=/", "HOME=/tmp"},
		Labels:     spec.Labels,
	}
	for k, v := range spec.Env {
		config.Config.Env = append(config.Config.Env, k+"="+v)
	}
	sort.Strings(config.Config.Env)
	return mutate.ConfigFile(img, config)
}
