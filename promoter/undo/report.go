package undo

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// reportDomain keeps a signature from being taken for one over something else.
const reportDomain = "slipway.dev/v1alpha1 Rollouts\n"

// maxReport bounds the payload of a SignedRollouts in bytes: what is over that loses its evidence, the last first.
const maxReport = 512 << 10

// SignRollouts makes a report that nobody but the holder of key can make.
func SignRollouts(key ed25519.PrivateKey, report v1alpha1.RolloutReport) (v1alpha1.SignedRollouts, error) {
	if len(key) != ed25519.PrivateKeySize {
		return v1alpha1.SignedRollouts{}, errors.New("report of rollouts: a key is required to sign it")
	}
	report.Rollouts = slices.Clone(report.Rollouts)
	payload, err := json.Marshal(report)
	for i := len(report.Rollouts) - 1; i >= 0 && err == nil && len(payload) > maxReport; i-- {
		state := &report.Rollouts[i]
		state.Omitted, state.Metrics, state.Trail = true, nil, nil
		if state.Verdict != nil {
			bare := *state.Verdict
			bare.Evidence, bare.Samples = nil, nil
			state.Verdict = &bare
		}
		payload, err = json.Marshal(report)
	}
	if err != nil {
		return v1alpha1.SignedRollouts{}, fmt.Errorf("report of rollouts: %w", err)
	}
	made := ed25519.Sign(key, append([]byte(reportDomain), payload...))
	return v1alpha1.SignedRollouts{Payload: string(payload), Signature: base64.StdEncoding.EncodeToString(made)}, nil
}

// ReadRollouts reads a report that claims to be of a cluster. VerifyRollouts says whether it is.
func ReadRollouts(signed v1alpha1.SignedRollouts) (v1alpha1.RolloutReport, error) {
	var report v1alpha1.RolloutReport
	if err := json.Unmarshal([]byte(signed.Payload), &report); err != nil {
		return report, fmt.Errorf("payload: %w", err)
	}
	return report, nil
}

// VerifyRollouts fails with ErrSignature unless key signed exactly this report.
func VerifyRollouts(key ed25519.PublicKey, signed v1alpha1.SignedRollouts) error {
	made, err := base64.StdEncoding.Strict().DecodeString(signed.Signature)
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, append([]byte(reportDomain), signed.Payload...), made) {
		return fmt.Errorf("report of rollouts: %w", ErrSignature)
	}
	return nil
}
