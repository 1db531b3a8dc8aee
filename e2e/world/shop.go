package world

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/slipway-cd/slipway/e2e/cluster"
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

// ShopOfItsSite is the change after which the sample takes its currency from its surroundings. That passes its own tests
// and runs in dev; production does not set the variable.
func ShopOfItsSite() gitsource.Change {
	return Write("currency.go", `package main

import (
	"errors"
	"os"
)

// currency is that of the prices on this site.
func currency() (string, error) {
	if c := os.Getenv("CURRENCY"); c != "" {
		return c, nil
	}
	return "", errors.New("panic: shop: CURRENCY is not set")
}
`)
}

// ShopPlayed is the change by which simulated pods know that an image crashes in a namespace; real ones find out.
func (w *World) ShopPlayed(ctx context.Context, namespace string) (gitsource.Change, error) {
	files, err := w.ShopSource(ctx)
	if err != nil {
		return gitsource.Change{}, err
	}
	for _, file := range files {
		if file.Path != ".pipeline.yml" {
			continue
		}
		line := "          repository: " + w.ShopImage() + "\n"
		return Write(file.Path, strings.Replace(string(file.Content), line, line+"          labels: "+cluster.BehaviourLabel+"=crash@"+namespace+"\n", 1)), nil
	}
	return gitsource.Change{}, errors.New("the sample has no pipeline")
}
