package apply

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/expression"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Notify is called when an object of app changed in a way that counts: our
// fields were taken, it disappeared or was replaced, or its Health changed. It must not block.
type Notify func(app types.NamespacedName, ref manifests.Ref)

// Watcher holds one watch for each kind in use, on the application label.
type Watcher struct {
	applier *Applier
	notify  Notify
	wake    chan struct{} // Track changed which kinds are in use
	doubts  workqueue.TypedRateLimitingInterface[manifests.Ref]
	ended   chan struct{}

	mu      sync.Mutex
	tracked map[manifests.Ref]tracked
	using   map[schema.GroupKind]int // how many of tracked are of a kind
	apps    map[types.NamespacedName]plan.Inventory
	checks  map[string]map[schema.GroupKind]expression.Health // by the name of the Application, as in its label
	kinds   map[schema.GroupKind]*kindWatch
	// recent is what an Apply was answered, until the watch has caught up with it.
	recent map[manifests.Ref]plan.Live
	// deletions are those that an Apply has under way.
	deletions map[manifests.Ref]*deletion
	// left are objects that left their watch, as one GET found them.
	left map[manifests.Ref]departed
}

// tracked is one object of an Application.
type tracked struct {
	app   types.NamespacedName
	entry plan.Entry
}

// departed is what is known of an object that left its watch.
type departed struct {
	live plan.Live
	at   time.Time
}

// departedFor is how long departed is believed: nothing tells of changes to it.
const departedFor = time.Minute

// NewWatcher attaches a Watcher to the Applier: from now on Observe answers
// from its caches and Apply tells it what was done. Watches end with ctx.
// An Applier has at most one Watcher; a second one takes its place.
func NewWatcher(ctx context.Context, a *Applier, notify Notify) *Watcher {
	w := &Watcher{
		applier: a,
		notify:  notify,
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
		doubts: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[manifests.Ref](200*time.Millisecond, 30*time.Second),
		),
		tracked:   map[manifests.Ref]tracked{},
		using:     map[schema.GroupKind]int{},
		apps:      map[types.NamespacedName]plan.Inventory{},
		checks:    map[string]map[schema.GroupKind]expression.Health{},
		kinds:     map[schema.GroupKind]*kindWatch{},
		recent:    map[manifests.Ref]plan.Live{},
		left:      map[manifests.Ref]departed{},
		deletions: map[manifests.Ref]*deletion{},
	}
	a.watcher.Store(w)
	go w.run(ctx)
	return w
}

// Wait returns when the context of NewWatcher has ended and all watches with it.
func (w *Watcher) Wait() { <-w.ended }

// Track sets what app owns, and what it wants when that is not applied yet; it
// starts the watches that this needs and ends those that nobody needs any more.
// A kind that is not served, or whose watch fails, delays no other one. It does
// not block, and sends nothing for kinds that are watched already. An empty
// inventory ends the tracking of app.
func (w *Watcher) Track(app types.NamespacedName, owned plan.Inventory) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref := range w.apps[app] {
		if _, still := owned[ref]; !still && w.tracked[ref].app == app {
			delete(w.tracked, ref)
			w.using[ref.GroupKind()]--
			delete(w.left, ref)
			delete(w.recent, ref)
		}
	}
	for ref, entry := range owned {
		t, taken := w.tracked[ref]
		if taken && t.app != app && t.entry.UID != "" && entry.UID == "" {
			continue // it is only wanted here: whoever owns it must go on to hear of it
		}
		if !taken {
			w.using[ref.GroupKind()]++
		}
		w.tracked[ref] = tracked{app: app, entry: entry}
	}
	w.apps[app] = owned
	if len(owned) == 0 {
		delete(w.apps, app)
	}
	w.addKinds()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// addKinds notes the kinds in use and lets go of the others. The caller holds mu.
func (w *Watcher) addKinds() {
	for kind, objects := range w.using {
		if objects == 0 {
			delete(w.using, kind)
			continue
		}
		k := w.kinds[kind]
		if k == nil {
			k = &kindWatch{kind: kind, settled: make(chan struct{})}
			w.kinds[kind] = k
		}
		if k.err != nil && meta.IsNoMatchError(k.err) {
			if _, err := w.applier.mapper.lookup(kind, ""); err == nil {
				k.retryAt = time.Time{} // it is served since
			}
		}
	}
	for kind, k := range w.kinds {
		if w.using[kind] == 0 {
			k.stop()
			delete(w.kinds, kind)
		}
	}
}

// Live returns what the caches know of ref, without any request.
func (w *Watcher) Live(ref manifests.Ref) plan.Live {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kinds[ref.GroupKind()]
	if k == nil || !k.synced {
		return plan.Live{Why: "the watch of " + ref.GroupKind().String() + " is not synced"}
	}
	if live, is := w.recent[ref]; is {
		return live
	}
	if r := k.record(ref); r != nil {
		return r.live
	}
	if gone, is := w.left[ref]; is && time.Since(gone.at) < departedFor {
		return gone.live
	}
	return plan.Live{Why: "not in the watch"}
}

// Health returns the health of a watched object, without any request. Objects
// of kinds that are not judged are Healthy as soon as they are there.
func (w *Watcher) Health(ref manifests.Ref) Health {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kinds[ref.GroupKind()]
	if k == nil || !k.synced {
		if k != nil {
			k.asked = true
		}
		return Health{Message: "the watch of " + ref.GroupKind().String() + " is not synced"}
	}
	if recent, is := w.recent[ref]; is {
		if recent.State == plan.Present && !judged(ref.GroupKind()) && !w.checked(ref.GroupKind()) {
			return Health{State: Healthy}
		}
		return Health{State: Progressing, Message: "was applied just now", Early: true}
	}
	if r := k.record(ref); r != nil {
		return r.health
	}
	return Health{State: Progressing, Message: "is not there"}
}

// Synced says whether the watches of all kinds that app owns are synced.
func (w *Watcher) Synced(app types.NamespacedName) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref := range w.apps[app] {
		if k := w.kinds[ref.GroupKind()]; k == nil || !k.synced {
			return false
		}
	}
	return true
}

// await waits until the watches of the kinds of refs are synced or have failed.
func (w *Watcher) await(ctx context.Context, refs []manifests.Ref, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w.mu.Lock()
	var settled []chan struct{}
	asked := map[schema.GroupKind]bool{}
	for _, ref := range refs {
		kind := ref.GroupKind()
		if k := w.kinds[kind]; k != nil && !k.synced && !asked[kind] {
			asked[kind] = true
			settled = append(settled, k.settled)
		}
	}
	w.mu.Unlock()
	for _, done := range settled {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// run starts watches as Track asks for them, until ctx ends.
func (w *Watcher) run(ctx context.Context) {
	defer close(w.ended)
	var group sync.WaitGroup
	defer group.Wait()
	defer w.doubts.ShutDown()
	for range 2 {
		group.Go(func() { w.settleDoubts(ctx) })
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, k := range w.due(time.Now()) {
			group.Go(func() { w.watch(ctx, k) })
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-tick.C:
		}
	}
}

// due returns the kinds whose watch has to be started now, and marks them started.
func (w *Watcher) due(now time.Time) []*kindWatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	var result []*kindWatch
	for _, k := range w.kinds {
		if !k.started && !now.Before(k.retryAt) {
			k.started = true
			result = append(result, k)
		}
	}
	return result
}

// settleDoubts asks for objects that left their watch: only the server can
// tell whether they were deleted or lost their label.
func (w *Watcher) settleDoubts(ctx context.Context) {
	for {
		ref, shutdown := w.doubts.Get()
		if shutdown {
			return
		}
		live := w.applier.read(ctx, ref, "")
		switch {
		case ctx.Err() != nil:
		case live.State == plan.Unknown:
			w.doubts.AddRateLimited(ref)
		default:
			w.doubts.Forget(ref)
			w.departed(ref, live)
		}
		w.doubts.Done(ref)
	}
}

// departed notes what was found of an object that left its watch.
func (w *Watcher) departed(ref manifests.Ref, live plan.Live) {
	w.mu.Lock()
	t, is := w.tracked[ref]
	k := w.kinds[ref.GroupKind()]
	back := k != nil && k.record(ref) != nil
	if is && !back {
		w.left[ref] = departed{live: live, at: time.Now()}
	}
	w.mu.Unlock()
	if is && !back {
		w.notify(t.app, ref)
	}
}
