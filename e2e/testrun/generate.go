package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Where generated files live.
const (
	typesDir = "manifests/v1alpha1"
	crdDir   = "manifests/install/crd"
	deepCopy = "zz_generated.deepcopy.go"
)

// generate writes the generated files anew, in their places.
func generate(ctx context.Context) error { return generateInto(ctx, typesDir, crdDir) }

func generateInto(ctx context.Context, types, crds string) error {
	program, err := controllerGen.find(ctx)
	if err != nil {
		return err
	}
	return quietly(ctx, "controller-gen", command(ctx, program, "paths=./"+typesDir,
		"object", "output:object:dir="+types, "crd", "output:crd:dir="+crds))
}

// verify checks that the generated files are what generate would write, and go.mod what `go mod tidy` would.
func verify(ctx context.Context) error {
	return errors.Join(generated(ctx), tidy(ctx))
}

// tidy shows the beginning of what `go mod tidy` would change.
func tidy(ctx context.Context) error {
	err := quietly(ctx, "go mod tidy -diff", command(ctx, "go", "mod", "tidy", "-diff"))
	if err == nil || ctx.Err() != nil {
		return err
	}
	const shown = 30
	lines := strings.Split(err.Error(), "\n")
	if left := len(lines) - shown; left > 0 {
		lines = append(lines[:shown], fmt.Sprintf("... and %d more lines", left))
	}
	return fmt.Errorf("%s\n(run go mod tidy and commit go.mod and go.sum)", strings.Join(lines, "\n"))
}

func generated(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "slipway-verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	types, crds := filepath.Join(dir, "types"), filepath.Join(dir, "crd")
	if err := generateInto(ctx, types, crds); err != nil {
		return err
	}
	differing, err := differences(crds, crdDir)
	if err != nil {
		return err
	}
	same, err := equal(filepath.Join(types, deepCopy), filepath.Join(typesDir, deepCopy))
	if err != nil {
		return err
	}
	if !same {
		differing = append(differing, filepath.Join(typesDir, deepCopy))
	}
	if len(differing) > 0 {
		say("%-44s FAILED", "generated files")
		return fmt.Errorf("not what the types say: %q (run make generate and commit the result)", differing)
	}
	return nil
}

// differences lists the files of committed that are missing, different or left over.
func differences(fresh, committed string) (names []string, err error) {
	all := map[string]bool{}
	for _, dir := range []string{fresh, committed} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if all[e.Name()] {
				continue
			}
			all[e.Name()] = true
			same, err := equal(filepath.Join(fresh, e.Name()), filepath.Join(committed, e.Name()))
			if err != nil {
				return nil, err
			}
			if !same {
				names = append(names, filepath.Join(committed, e.Name()))
			}
		}
	}
	return names, nil
}

// equal reports whether both files are there with equal content.
func equal(a, b string) (bool, error) {
	one, errOne := os.ReadFile(a)
	other, errOther := os.ReadFile(b)
	if errors.Is(errOne, fs.ErrNotExist) || errors.Is(errOther, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.Equal(one, other), errors.Join(errOne, errOther)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
