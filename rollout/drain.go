package rollout

import "github.com/slipway-cd/slipway/rollout/analysis"

// stableDrained is an errDraining while gateways may still send to pods of stable that are about to go: traffic has just left
// them. A failed version gets no such time, because stable is on its way back then.
func (w *arranging) stableDrained() error {
	if w.Placed.Failed != "" || !w.stableLate() {
		return nil
	}
	return w.drained()
}

// canaryDrained is the same for pods of the canary that is there: for those that get too many, and for all of them when it is
// exchanged for a newer one.
func (w *arranging) canaryDrained() error {
	live, a := w.o.Canary, w.Arrangement
	if live.Knowledge != analysis.Present || a.Canary == nil || live.Placed.Bundle == a.Canary.Digest && live.Wanted <= a.CanaryReplicas {
		return nil
	}
	return w.drained()
}

func (w *arranging) drained() error {
	if left := w.draining(w.options.Drain); left > 0 {
		return errDraining{left}
	}
	return nil
}
