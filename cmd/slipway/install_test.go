package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// The key in the file is the one that the repository knows the cluster's agent by, and a file that is there stays.
func TestEnrolsAnAgent(t *testing.T) {
	d := newDeck(t)
	file := filepath.Join(t.TempDir(), "agent.pem")
	enrol := []string{"install", "--cluster", "quay", "--url", d.URL, "--new-key", file}
	d.says(d.slipway(exitDone, enrol...), environment.AgentKeyPath("quay"), "allowed_signers")
	key, err := wire.ReadKey(file)
	d.must(err)
	content, err := d.File(t.Context(), environment.AgentKeyPath("quay"))
	d.must(err)
	public, err := undo.ParsePublicKey([]byte(content))
	d.must(err)
	if !bytes.Equal(public, wire.PublicKey(key)) {
		t.Errorf("the repository knows another key than %s holds:\n%s", file, content)
	}
	d.says(d.slipway(exitFailed, enrol...), "file exists")
	if again, err := wire.ReadKey(file); err != nil || !again.Equal(key) {
		t.Errorf("the key was overwritten, or %v", err)
	}
}
