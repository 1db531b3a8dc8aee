package wire

import (
	"context"
	"errors"

	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// verifier makes decisions of what package sigstore finds out.
type verifier struct{ images *sigstore.Verifier }

func newVerifier(o AgentOptions) verifier {
	var logins sigstore.Logins
	if o.RegistryLogins != "" {
		logins = sigstore.LoginsFile(o.RegistryLogins)
	}
	return verifier{sigstore.NewVerifier(sigstore.VerifierOptions{Logins: logins, Now: o.Now})}
}

func (v verifier) Verify(ctx context.Context, image string, requirement policy.Requirement) (policy.Decision, error) {
	decision := policy.Decision{Outcome: policy.Deny, Rule: "image policy " + requirement.Policy, Subject: "image " + image}
	_, err := v.images.Verify(ctx, image, requirement)
	var refusal *sigstore.Refusal
	if errors.As(err, &refusal) {
		decision.Reason = refusal.Reason()
		return decision, nil
	}
	if err != nil {
		return decision, err
	}
	decision.Outcome = policy.Allow
	return decision, nil
}
