package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// lint runs all checkers, also after one has found something.
func lint(ctx context.Context) error {
	format, err := gofumpt.find(ctx)
	if err != nil {
		return err
	}
	static, err := staticcheck.find(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		formatted(ctx, format),
		quietly(ctx, "go vet", command(ctx, "go", "vet", "./...")),
		quietly(ctx, "go vet, with failpoints", command(ctx, "go", "vet", "-tags", "failpoints", "./...")),
		quietly(ctx, "staticcheck", command(ctx, static, "./...")),
	)
}

// formatted looks at tracked and new files: what is about to be committed counts.
func formatted(ctx context.Context, gofumpt string) error {
	list, err := output(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", "*.go")
	if err != nil {
		return fmt.Errorf("%w (lint reads which files belong to the checkout from Git)", err)
	}
	var files []string
	for name := range strings.SplitSeq(list, "\x00") {
		if name != "" && !strings.HasPrefix(filepath.Base(name), "zz_generated") && exists(name) {
			files = append(files, name)
		}
	}
	wrong, err := output(ctx, gofumpt, append([]string{"-l"}, files...)...)
	if err != nil {
		return err
	}
	if wrong != "" {
		say("%-44s FAILED", "gofumpt")
		return fmt.Errorf("not formatted (run %s -w on them):\n%s", gofumpt, wrong)
	}
	say("%-44s ok, %d files", "gofumpt", len(files))
	return nil
}
