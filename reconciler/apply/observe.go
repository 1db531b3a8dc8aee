package apply

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Observe returns the live state of refs: from the watches where they know
// it, else with one GET each. Watches that are starting are waited for, up to
// SyncWait. An error becomes Unknown, with the reason.
func (a *Applier) Observe(ctx context.Context, refs []manifests.Ref) plan.Observed {
	seen := make(plan.Observed, len(refs))
	missing := refs
	if w := a.watcher.Load(); w != nil {
		w.await(ctx, refs, a.options.SyncWait)
		missing = nil
		for _, ref := range refs {
			if live := w.Live(ref); live.State != plan.Unknown {
				seen[ref] = live
			} else {
				missing = append(missing, ref)
			}
		}
	}
	lives := make([]plan.Live, len(missing))
	a.parallel(len(missing), func(i int) { lives[i] = a.read(ctx, missing[i], "") })
	for i, ref := range missing {
		seen[ref] = lives[i]
	}
	return seen
}

// read asks the server for one object. A kind that is not served has no objects.
func (a *Applier) read(ctx context.Context, ref manifests.Ref, version string) plan.Live {
	r, err := a.mapper.find(ref.GroupKind(), version)
	if meta.IsNoMatchError(err) {
		return plan.Live{State: plan.Absent}
	}
	if err != nil {
		return plan.Live{Why: "finding its kind: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	object, err := a.metadataOf(r, ref).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return plan.Live{State: plan.Absent}
	}
	if err != nil {
		return plan.Live{Why: fmt.Sprintf("reading it: %s %v", apierrors.ReasonForError(err), err)}
	}
	return plan.LiveOf(object, a.options.Manager)
}
