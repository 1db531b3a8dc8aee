package gogit_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/gitsource/signature"
)

// Commits of a Store that signs arrive signed: Git says so, and so does what agents verify by.
func TestSignedCommits(t *testing.T) {
	h := newHost(t)
	base := h.commit("First", map[string]string{"a": "1"})
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.NewSSH(private)
	if err != nil {
		t.Fatal(err)
	}
	s := h.store(t.TempDir(), func(o *gogit.Options) { o.Sign = signer.Sign })
	ctx := context.Background()
	if _, err := s.Fetch(ctx, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	tree, err := s.WriteTree(base, []gitsource.Change{{Path: "a", Content: []byte("2")}})
	if err != nil {
		t.Fatal(err)
	}
	who := gitsource.Person{Name: "slipway-agent eu", Email: "eu@agents.slipway.dev", When: h.clock}
	made := gitsource.NewCommit{Parents: []gitsource.ObjectID{base}, Tree: tree, Message: "Revert\n\nSlipway-Verdict: Fail\n", Author: who, Committer: who}
	id, err := s.Commit(made)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Commit(made); err != nil || again != id {
		t.Errorf("the same commit once more: %s and %s, %v", id, again, err)
	}
	if err := s.Push(ctx, "refs/heads/main", base, id); err != nil {
		t.Fatal(err)
	}
	line, err := signature.AllowedSigner("eu@agents.slipway.dev", public)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := signature.ParseKeys(map[string][]byte{signature.AllowedSigners: []byte(line)})
	if err != nil {
		t.Fatal(err)
	}
	content, err := s.Object(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Commit(content); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "allowed_signers")
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.git(h.dir, "config", "gpg.ssh.allowedSignersFile", file)
	h.git(h.dir, "verify-commit", string(id))
	if got := h.git(h.dir, "log", "-1", "--format=%G? %GS%n%(trailers:key=Slipway-Verdict)", string(id)); !strings.HasPrefix(got, "G eu@agents.slipway.dev\nSlipway-Verdict: Fail") {
		t.Errorf("git says %q", got)
	}
	if commit, err := s.CommitOf(ctx, id); err != nil || commit.Message != made.Message {
		t.Errorf("%q, %v", commit.Message, err)
	}
	refuses := errors.New("the key is gone")
	s = h.store(t.TempDir(), func(o *gogit.Options) { o.Sign = func([]byte) (string, error) { return "", refuses } })
	if tree, err = s.WriteTree("", []gitsource.Change{{Path: "a", Content: []byte("2")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(gitsource.NewCommit{Tree: tree, Message: "x", Author: who, Committer: who}); !errors.Is(err, refuses) {
		t.Errorf("without a signature: %v", err)
	}
}
