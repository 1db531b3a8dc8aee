package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
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
