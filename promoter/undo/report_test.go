package undo_test

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/undo"
)

func TestSignedRollouts(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	verdict := judged().Verdict
	report := v1alpha1.RolloutReport{Cluster: "eu", At: at, Rollouts: []v1alpha1.RolloutState{{Namespace: "shop", Name: "web", Phase: "Failed", Verdict: &verdict}}}
	signed, err := undo.SignRollouts(private, report)
	if err != nil {
		t.Fatal(err)
	}
	if err := undo.VerifyRollouts(public, signed); err != nil {
		t.Error(err)
	}
	got, err := undo.ReadRollouts(signed)
	if err != nil || got.Cluster != "eu" || got.Rollouts[0].Verdict.Evidence == nil || got.Rollouts[0].Omitted {
		t.Errorf("%v: %+v", err, got)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	forged := signed
	forged.Payload = strings.Replace(signed.Payload, "Failed", "Healthy", 1)
	for name, err := range map[string]error{"another key": undo.VerifyRollouts(other, signed), "another payload": undo.VerifyRollouts(public, forged)} {
		if !errors.Is(err, undo.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 400 {
		report.Rollouts = append(report.Rollouts, report.Rollouts[0])
	}
	if signed, err = undo.SignRollouts(private, report); err != nil || len(signed.Payload) > 512<<10 {
		t.Fatalf("%d bytes, %v", len(signed.Payload), err)
	}
	got, err = undo.ReadRollouts(signed)
	if last := got.Rollouts[400]; err != nil || !last.Omitted || last.Verdict.Reason != verdict.Reason || last.Verdict.Evidence != nil || got.Rollouts[0].Omitted {
		t.Errorf("%v: %+v", err, last)
	}
	if verdict.Evidence == nil || report.Rollouts[400].Omitted {
		t.Error("signing changed what it was given")
	}
	if _, err := undo.SignRollouts(nil, report); err == nil {
		t.Error("signed without a key")
	}
}
