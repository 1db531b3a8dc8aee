package reconciler

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// mustHoldSigned says why a revert would not count for a source that takes signed commits only; empty if it would. Such a
// commit would lock everybody out who follows the source.
func (p *pass) mustHoldSigned(ctx context.Context, mark *v1alpha1.Mark) string {
	if p.source.Spec.Verify == nil {
		return ""
	}
	refused := func(why string) string {
		return fmt.Sprintf("gitsource %s takes signed commits only, and %s; or revert it with a signed commit", p.source.Name, why)
	}
	key, why := p.committer()
	if why != "" {
		return refused(why)
	}
	keys, err := signersOf(ctx, p.r.Secrets, &p.source)
	if err != nil {
		return refused("who may sign cannot be read: " + err.Error())
	}
	if err := keys.Admits(key, mark.Verdict.At.Time); err != nil {
		return refused("the revert's would not count: " + err.Error() + " (allow the key in the Secret of spec.verify)")
	}
	return ""
}

// committer is the key by which a revert of this Application is signed: the agent's own, or that of the server as the
// repository has it. Why says what is missing.
func (p *pass) committer() (key ed25519.PublicKey, why string) {
	if p.r.Sign == nil {
		if p.r.CommitKey == nil {
			return nil, "this agent has no key to sign its own with (slipway-agent --key)"
		}
		return p.r.CommitKey, ""
	}
	content, err := p.tipTree.Tree.ReadFile(environment.ServerKeyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, environment.ServerKeyPath + " does not say which key the server signs with (slipway-server commit-key makes one)"
	}
	if err == nil {
		key, err = undo.ParsePublicKey(content)
	}
	if err != nil {
		return nil, environment.ServerKeyPath + " cannot be read: " + err.Error()
	}
	return key, ""
}
