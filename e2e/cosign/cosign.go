// Package cosign runs the cosign command, unmodified, as the eyes of somebody who knows nothing of Slipway.
//
// It promises that what it says about an image comes from that program alone, without a transparency log.
package cosign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// CLI is the cosign command.
type CLI struct{ program string }

// Find returns the cosign that `make tools` installs, and builds it where it is not there yet: some minutes, once for
// each user.
func Find(ctx context.Context) (CLI, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return CLI{}, errors.New("cosign: this program does not know where the checkout is (build it without -trimpath)")
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./e2e/testrun", "tool", "cosign")
	cmd.Dir = filepath.Join(filepath.Dir(file), "..", "..")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return CLI{}, fmt.Errorf("cosign: %w: %s", err, bytes.TrimSpace(out))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return CLI{program: lines[len(lines)-1]}, nil
}

// Verify runs `cosign verify` with a public key.
func (c CLI) Verify(ctx context.Context, image, keyFile string) error {
	_, err := c.Run(ctx, nil, "verify", "--key", keyFile, "--insecure-ignore-tlog=true", image)
	return err
}

// VerifyAttestation runs `cosign verify-attestation` with a public key for one type, "slsaprovenance1" or "spdxjson", and
// returns what it prints: the envelope.
func (c CLI) VerifyAttestation(ctx context.Context, image, keyFile, predicateType string) ([]byte, error) {
	return c.Run(ctx, nil, "verify-attestation", "--key", keyFile, "--type", predicateType, "--insecure-ignore-tlog=true", image)
}

// Run runs the command and returns what it prints. Plain http is its own choice, on loopback alone.
func (c CLI) Run(ctx context.Context, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Env = append(os.Environ(), append([]string{"COSIGN_YES=true"}, env...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("cosign %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
