package reconciler

import (
	"testing"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

func TestLeftGit(t *testing.T) {
	gone := manifests.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "gone"}
	hook := manifests.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: "migrate"}
	stored := manifests.Ref{Group: "apps", Kind: "ControllerRevision", Namespace: "shop", Name: "web-1"}
	written := manifests.Ref{Group: "apps", Kind: "ControllerRevision", Namespace: "shop", Name: "by-hand"}
	in := &plan.In{
		Owned: plan.Inventory{gone: {}, hook: {}, stored: {}, written: {}},
		Hooks: map[manifests.Ref]bool{hook: true},
		Seen:  plan.Observed{gone: {State: plan.Present}, stored: {State: plan.Present, Stored: true}, written: {State: plan.Present}},
	}
	for ref, want := range map[manifests.Ref]bool{gone: true, hook: false, stored: false, written: true} {
		if got := leftGit(in, ref); got != want {
			t.Errorf("%s left Git: %v, want %v", ref, got, want)
		}
	}
}
