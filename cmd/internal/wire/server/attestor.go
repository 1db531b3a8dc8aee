package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/slipway-cd/slipway/builder/run"
	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/policy/sigstore"
	"github.com/slipway-cd/slipway/policy/sigstore/proof"
)

// attestor signs by a Signer, and believes that it did when cosign says so.
type attestor struct {
	signer *sigstore.Signer
	proof  *proof.Proof
}

// newAttestor reads the signing key; nil if none is configured, and then no image can be built.
func newAttestor(c Config) (*attestor, error) {
	if c.Signing.KeyFile == "" {
		return nil, nil
	}
	key, err := secret(c.Signing.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w (make one with slipway-server key)", err)
	}
	password, err := secret(c.Signing.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password of the signing key: %w", err)
	}
	known := map[string]sigstore.Login{}
	for _, r := range c.Registries {
		password, err := secret(r.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", r.Host, err)
		}
		known[r.Host] = sigstore.Login{Username: r.Username, Password: password}
	}
	logins := sigstore.LoginsOf(known)
	signer, err := sigstore.NewSigner(sigstore.SignerOptions{
		Key: key, Password: password, Logins: logins, Version: wire.Version, Failpoint: wire.Failpoint,
	})
	if err != nil {
		return nil, err
	}
	proved, err := proof.New(proof.Options{
		PublicKey: signer.PublicKey(), Keychain: logins,
		Statements: []string{sigstore.PredicateSBOM, sigstore.PredicateProvenance, sigstore.PredicateSignature},
	})
	return &attestor{signer: signer, proof: proved}, err
}

// Attest may be called again: a registry that shows late what it was given is asked later.
func (a *attestor) Attest(ctx context.Context, s run.Subject) error {
	err := a.signer.Attest(ctx, sigstore.Subject{Image: s.Image, Run: s.Run, Job: s.Job, Base: s.Build.Base})
	if errors.Is(err, sigstore.ErrUnattestable) {
		return fmt.Errorf("%w: %w", run.ErrRefused, err)
	}
	if err != nil {
		return err
	}
	return a.proof.Check(ctx, s.Image.Reference())
}
