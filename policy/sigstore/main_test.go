package sigstore_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipway-cd/slipway/e2e/cosign"
)

// What all tests use and none changes: a Go program for images, and the cosign command.
var (
	program string
	cli     cosign.CLI
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "slipway-sigstore-")
	if err == nil {
		program = filepath.Join(dir, "app")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "github.com/slipway-cd/slipway/e2e/cluster/pause")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err == nil {
		cli, err = cosign.Find(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
