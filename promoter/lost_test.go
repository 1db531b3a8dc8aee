package promoter_test

import (
	"errors"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
)

// TestLostAnswers: the push arrived, its answer did not. Doing it again writes nothing twice.
func TestLostAnswers(t *testing.T) {
	f := newFailure(t)
	r := f.request(nil)
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"revert", func() error { _, err := f.CarryOut(ctx, r); return err }},
		{"promote", func() error { _, err := f.Promote(ctx, toDev("d")); return err }},
		{"request", func() error { _, err := f.Promote(ctx, toProduction("d")); return err }},
		{"merge", func() error { _, err := f.Merge(ctx, "production", "shop", ann, ""); return err }},
		{"hold", func() error {
			_, err := f.Hold(ctx, promoter.HoldRequest{App: "shop", Environment: "dev", Author: ann, Reason: "bad"})
			return err
		}},
	} {
		f.repo.lostAnswer = true
		if err := c.do(); !errors.Is(err, gitsource.ErrUnreachable) {
			t.Fatalf("%s: %v", c.name, err)
		}
		main, request := f.tip("main"), f.tip(requestBranch)
		if err := c.do(); err != nil {
			t.Fatalf("%s again: %v", c.name, err)
		}
		if f.tip("main") != main || c.name != "merge" && f.tip(requestBranch) != request {
			t.Errorf("%s: written twice", c.name)
		}
	}
}
