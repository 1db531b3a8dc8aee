package world

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
)

// ShopImage is the repository that the sample's own pipeline pushes to.
func (w *World) ShopImage() string { return w.Registry.Host() + "/apps/shop" }

// ShopSource returns the files of the sample service as a repository of its own, with its pipeline.
func (w *World) ShopSource(ctx context.Context) ([]gitsource.Change, error) {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return nil, err
	}
	files, err := Folder(filepath.Join(root, "e2e", "testdata", "shop"), map[string]string{"SHOP_IMAGE_NAME": w.ShopImage()})
	return append(files, Write("go.mod", "module shop.example/shop\n\ngo 1.26\n")), err
}

// ShopVersion is the change that makes it another version.
func ShopVersion(version string) gitsource.Change {
	return Write("version.go", "package main\n\nconst version = \""+version+"\"\n")
}

// Fleet returns the files of the sample environment repo, which starts with an image, NAME@DIGEST.
func Fleet(ctx context.Context, image string) ([]gitsource.Change, error) {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return nil, err
	}
	name, digest, _ := strings.Cut(image, "@")
	return Folder(filepath.Join(root, "e2e", "testdata", "env"), map[string]string{"SHOP_IMAGE_NAME": name, "SHOP_IMAGE_DIGEST": digest})
}
