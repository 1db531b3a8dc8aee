package signature_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource/signature"
)

// What Slipway signs counts for Git itself with the line that Slipway gives, and for nobody without it.
func TestGitTakesWhatIsSigned(t *testing.T) {
	r := newRepository(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.NewSSH(private)
	if err != nil {
		t.Fatal(err)
	}
	plain := r.commit()
	armored, err := signer.Sign(plain)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := signer.Sign(plain); err != nil || again != armored {
		t.Errorf("the same commit is signed in another way: %v", err)
	}
	head, message, _ := strings.Cut(string(plain), "\n\n")
	signed := head + "\ngpgsig " + strings.ReplaceAll(strings.TrimSpace(armored), "\n", "\n ") + "\n\n" + message
	id := strings.TrimSpace(string(r.run([]byte(signed), "git", "hash-object", "-t", "commit", "-w", "--stdin")))

	line, err := signature.AllowedSigner("slipway-agent-eu", public)
	if err != nil {
		t.Fatal(err)
	}
	keys := allowed(t, line)
	who, err := keys.Commit([]byte(signed))
	if err != nil || who.Name != "slipway-agent-eu" {
		t.Errorf("%v, %v", who, err)
	}
	file := filepath.Join(t.TempDir(), "allowed_signers")
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.git("config", "gpg.format", "ssh")
	r.git("config", "gpg.ssh.allowedSignersFile", file)
	r.git("verify-commit", id)
	if got := r.git("log", "-1", "--format=%G? %GS", id); got != "G slipway-agent-eu" {
		t.Errorf("git says %q", got)
	}
	if _, err := keys.Commit([]byte(strings.Replace(signed, "Subject", "Other", 1))); !errors.Is(err, signature.ErrInvalid) {
		t.Errorf("a changed commit: %v", err)
	}
}

func TestAdmits(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	line, err := signature.AllowedSigner("agent", public)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	if err := allowed(t, line).Admits(public, now); err != nil {
		t.Error(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	past := strings.Replace(line, "namespaces", `valid-before="20260101Z",namespaces`, 1)
	for want, err := range map[string]error{
		"not among the allowed signers": allowed(t, line).Admits(other, now),
		"not valid any more":            allowed(t, past).Admits(public, now),
	} {
		if !errors.Is(err, signature.ErrStranger) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := signature.NewSSH(private[:10]); err == nil {
		t.Error("a part of a key signs")
	}
}
