package apply

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Notify is called when an object of app changed in a way that counts: our
// fields were taken, it disappeared or was replaced, or its Health changed. It must not block.
type Notify func(app types.NamespacedName, ref manifests.Ref)

// Watcher holds one watch for each kind in use, on the application label.
type Watcher struct{}

// NewWatcher attaches a Watcher to the Applier: from now on Observe answers
// from its caches and Apply tells it what was done. Watches end with ctx.
// An Applier has at most one Watcher.
func NewWatcher(ctx context.Context, a *Applier, notify Notify) *Watcher { return nil }

// Track sets what app owns, and wants when it is not applied yet; it starts
// the watches that this needs and ends those that nobody needs any more. A kind
// that is not served, or whose watch fails, delays no other one. It does not
// block and sends nothing for kinds that are watched already. An empty
// inventory ends the tracking of app.
func (w *Watcher) Track(app types.NamespacedName, owned plan.Inventory) {}

// Live returns what the caches know of ref, without any request.
func (w *Watcher) Live(ref manifests.Ref) plan.Live { return plan.Live{} }

// Health returns the health of a watched object, without any request. Objects
// of kinds that are not judged are Healthy as soon as they are there.
func (w *Watcher) Health(ref manifests.Ref) Health { return Health{} }

// Synced says whether the watches of all kinds that app owns are synced.
func (w *Watcher) Synced(app types.NamespacedName) bool { return false }
