package world

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// AgentKey makes a key for the agent. It returns the file of the private half, and the change that enrols the public one.
func (w *World) AgentKey(_ context.Context) (file string, enrol gitsource.Change, err error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", gitsource.Change{}, fmt.Errorf("agent's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", gitsource.Change{}, fmt.Errorf("agent's key: %w", err)
	}
	dir, err := w.folder("keys")
	if err != nil {
		return "", gitsource.Change{}, err
	}
	file = filepath.Join(dir, "agent.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return "", gitsource.Change{}, err
	}
	return file, Write(environment.AgentKeyPath(ClusterName), string(undo.FormatPublicKey(public))), nil
}
