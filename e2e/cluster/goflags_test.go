package cluster

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The user's GOFLAGS do not reach builds, neither from the environment nor from `go env -w`, and VCS stamping is off: it
// fails where the checkout belongs to another user.
func TestUsersGoFlagsDoNotReachBuilds(t *testing.T) {
	dir := t.TempDir()
	env := filepath.Join(dir, "env")
	if err := os.WriteFile(env, []byte("GOFLAGS=-mod=nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string][2]string{
		"environment": {"GOFLAGS", "-mod=nonsense"},
		"go env -w":   {"GOENV", env},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOFLAGS", "")
			t.Setenv(set[0], set[1])
			c := cache{dir: dir, log: io.Discard}
			if err := c.goCommand(t.Context(), "pause", "pause", nil, "build", "-o", filepath.Join(dir, "pause"), "."); err != nil {
				t.Error(err)
			}
		})
	}
}
