package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource/signature"
	"github.com/slipway-cd/slipway/promoter/undo"
)

func TestRefusesFlags(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for name, c := range map[string]struct{ line, want string }{
		"no repository":    {"--insecure-http", `at least one of the flags in the group [config repo] is required`},
		"no certificate":   {"--repo http://git.example/x.git", "no certificate: give --tls-cert"},
		"plain for all":    {"--repo http://git.example/x.git --insecure-http --listen :0", "only a loopback address"},
		"no key":           {"--repo http://git.example/x.git --tls-cert c.pem", "tls-key"},
		"two certificates": {"--repo http://git.example/x.git --insecure-http --tls-self-signed d", "none of the others can be"},
		"certificate gone": {"--repo http://git.example/x.git --tls-cert " + missing + " --tls-key " + missing, "certificate " + missing},
		"password gone":    {"--repo http://git.example/x.git --insecure-http --git-password-file " + missing, "--git-password-file"},
		"commit key gone":  {"--repo http://git.example/x.git --insecure-http --commit-key " + missing, "--commit-key"},
		"in the URL":       {"--repo http://u:hunter2@git.example/x.git --insecure-http --listen 127.0.0.1:0", "credentials"},
		"argument":         {"--repo http://git.example/x.git --insecure-http now", `unknown command "now"`},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command()
			cmd.SetArgs(append(strings.Fields(c.line), "--data", t.TempDir(), "--metrics-address", "0"))
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			err := cmd.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A key is made once, and what is printed and written fits to it.
func TestCommitKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "commit-key.pem")
	makes := func(out io.Writer) error {
		cmd := command()
		cmd.SetArgs([]string{"commit-key", "--out", file})
		cmd.SetOut(out)
		cmd.SetErr(io.Discard)
		return cmd.ExecuteContext(t.Context())
	}
	var line strings.Builder
	if err := makes(&line); err != nil {
		t.Fatal(err)
	}
	key, err := wire.ReadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := signature.AllowedSigner("slipway-server", wire.PublicKey(key))
	if err != nil || strings.TrimSpace(line.String()) != want {
		t.Errorf("%v: printed %q, want %q", err, line.String(), want)
	}
	content, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if public, err := undo.ParsePublicKey(content); err != nil || !public.Equal(wire.PublicKey(key)) {
		t.Errorf("%s: %v", content, err)
	}
	if err := makes(io.Discard); err == nil {
		t.Error("a key was overwritten")
	}
}
