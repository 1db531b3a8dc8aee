package sources

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource/signature"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// revertSigned: where the agent's key counts, its revert is pushed, signed, and followed, by itself and by Git's own verdict.
func (b *bed) revertSigned() {
	repo := b.repository("revert-signed")
	bare := filepath.Join(b.root, "revert-signed.git")
	repo.git("-C", bare, "config", "http.receivepack", "true")
	kim := repo.key("kim")
	line, err := signature.AllowedSigner("slipway-agent-demo", b.commits)
	b.must(err)
	signers := "kim@example.com " + kim.public + "\n" + line + "\n"
	b.secret("revert-signers", map[string][]byte{signature.AllowedSigners: []byte(signers)})
	repo.signWith(kim)
	repo.push(configMap("1"), "-S")
	spec := v1alpha1.GitSourceSpec{URL: repo.url, Verify: &v1alpha1.Verification{SecretRef: v1alpha1.LocalRef{Name: "revert-signers"}}}
	b.must(b.kube.Create(b.Context(), b.source("revert-signed", spec)))
	app := b.application("revert-signed")
	b.condition(app, v1alpha1.ConditionReady, v1alpha1.ReasonSucceeded)
	bad := repo.push(configMap("2")+"---\n"+neverReady, "-S")
	b.look("revert-signed")
	tip := bad
	b.must(world.Eventually(b.Context(), atMost, func() error {
		if tip = repo.git("-C", bare, "rev-parse", "main"); tip == bad {
			return errors.New("the bad commit is the tip")
		}
		return nil
	}))
	src := b.at("revert-signed", "refs/heads/main@sha1:"+tip)
	if !strings.HasPrefix(src.Status.VerifiedBy, "slipway-agent-demo (SSH key ") {
		b.Errorf("verified by %q", src.Status.VerifiedBy)
	}
	b.condition(app, v1alpha1.ConditionReady, v1alpha1.ReasonSucceeded)
	b.value(app, "1")
	file := filepath.Join(b.TempDir(), "allowed_signers")
	b.must(os.WriteFile(file, []byte(signers), 0o600))
	repo.git("-C", bare, "-c", "gpg.ssh.allowedSignersFile="+file, "verify-commit", tip)
	if says := repo.git("-C", bare, "-c", "gpg.ssh.allowedSignersFile="+file, "log", "-1", "--format=%G? %GS %(trailers:key=Slipway-Reverts,valueonly)", tip); says != "G slipway-agent-demo "+bad {
		b.Errorf("git says %q", says)
	}
}
