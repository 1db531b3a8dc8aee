package server_test

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/signature"
)

// What the server commits is signed with its own key: a revert, and the Hold that is in it.
func TestServerSigns(t *testing.T) {
	w := newWorld(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := w.serve(func(o *server.Options) { o.CommitKey = private })
	got, err := s.Revert(t.Context(), w.request())
	if err != nil || got.Commit != string(w.tip()) {
		t.Fatalf("%+v, %v", got, err)
	}
	line, err := signature.AllowedSigner("slipway-server", public)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "allowed_signers")
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if says := w.git("-C", w.dir, "-c", "gpg.ssh.allowedSignersFile="+file, "log", "-1", "--format=%G? %GS", got.Commit); says != "G slipway-server" {
		t.Errorf("git says %q", says)
	}
	keys, err := signature.ParseKeys(map[string][]byte{signature.AllowedSigners: []byte(line)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.agent.Fetch(t.Context(), "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	content, err := w.agent.Object(t.Context(), gitsource.ObjectID(got.Commit))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Commit(content); err != nil {
		t.Error(err)
	}
}
