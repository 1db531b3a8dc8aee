package sigstore

import (
	"archive/tar"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxProgram bounds the temporary file that a program is read from, in bytes.
const maxProgram = 1 << 30

// program is the Go program that an image of one platform starts.
type program struct {
	image    v1.Hash // that it was found in
	platform string  // "linux/amd64"
	path     string  // in the image
	info     *debug.BuildInfo
}

// programs reads the image from the registry, by digest, and finds its program; that of each platform if it is an index.
// It asks the image, not the worker that made it.
func (r *repository) programs(ctx context.Context) ([]program, error) {
	described, err := r.puller.Get(ctx, r.image)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", r.image, err)
	}
	if !described.MediaType.IsIndex() {
		image, err := described.Image()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.image, err)
		}
		p, err := programOf(image)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.image, err)
		}
		return []program{p}, nil
	}
	index, err := described.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", r.image, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", r.image, err)
	}
	var all []program
	for _, d := range manifest.Manifests {
		image, err := index.Image(d.Digest)
		if err != nil {
			return nil, fmt.Errorf("image %s: %s: %w", r.image, d.Digest, err)
		}
		p, err := programOf(image)
		if err != nil {
			return nil, fmt.Errorf("image %s: %s: %w", r.image, d.Digest, err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("image %s: an index without images", r.image)
	}
	return all, nil
}

func programOf(image v1.Image) (program, error) {
	digest, err := image.Digest()
	if err != nil {
		return program{}, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return program{}, err
	}
	command := append(config.Config.Entrypoint, config.Config.Cmd...)
	if len(command) == 0 || !path.IsAbs(command[0]) {
		return program{}, errors.New("no absolute path as entrypoint, so that its program is not known (build it with uses: go-image)")
	}
	layers, err := image.Layers()
	if err != nil {
		return program{}, err
	}
	// From the top: the program's layer comes last, and the base need not be read.
	for i := len(layers) - 1; i >= 0; i-- {
		info, err := programIn(layers[i], command[0])
		if errors.Is(err, errNotInLayer) {
			continue
		}
		if err != nil {
			return program{}, fmt.Errorf("program %s: %w", command[0], err)
		}
		return program{image: digest, platform: config.OS + "/" + config.Architecture, path: command[0], info: info}, nil
	}
	return program{}, fmt.Errorf("program %s: not in the image", command[0])
}

var errNotInLayer = errors.New("not in this layer")

func programIn(layer v1.Layer, name string) (*debug.BuildInfo, error) {
	content, err := layer.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	for files := tar.NewReader(content); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil, errNotInLayer
		}
		if err != nil {
			return nil, err
		}
		if path.Clean("/"+strings.TrimPrefix(header.Name, "./")) != path.Clean(name) {
			continue
		}
		if header.Typeflag != tar.TypeReg || header.Size > maxProgram {
			return nil, fmt.Errorf("not a regular file of at most %d bytes", maxProgram)
		}
		return readBuildInfo(files)
	}
}

// readBuildInfo goes through a file, because the format needs random access.
func readBuildInfo(content io.Reader) (*debug.BuildInfo, error) {
	file, err := os.CreateTemp("", "slipway-program-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := io.Copy(file, io.LimitReader(content, maxProgram)); err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(file)
	if err != nil {
		return nil, fmt.Errorf("no build information (only Go programs have it): %w", err)
	}
	return info, nil
}
