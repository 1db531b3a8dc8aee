package apply

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// kindWatch is the watch of one kind. All fields but settled are guarded by Watcher.mu.
type kindWatch struct {
	kind    schema.GroupKind
	started bool
	synced  bool
	settled chan struct{} // closed when the first start has synced or failed
	store   cache.Store
	cancel  context.CancelFunc
	stopped bool
	err     error
	failure int  // in a row
	asked   bool // for the health of an object, when that was not known
	retryAt time.Time
}

// record is what the cache keeps of an object.
type record struct {
	metav1.ObjectMeta // name, namespace and resourceVersion, for the cache's own needs
	live              plan.Live
	health            Health
}

// record returns the cached object, nil if there is none.
func (k *kindWatch) record(ref manifests.Ref) *record {
	if k.store == nil {
		return nil
	}
	key := ref.Name
	if ref.Namespace != "" {
		key = ref.Namespace + "/" + ref.Name
	}
	item, found, err := k.store.GetByKey(key)
	if err != nil || !found {
		return nil
	}
	r, _ := item.(*record)
	return r
}

// stop ends the watch for good.
func (k *kindWatch) stop() {
	k.stopped, k.synced = true, false
	if k.cancel != nil {
		k.cancel()
	}
	k.settle()
}

func (k *kindWatch) settle() {
	select {
	case <-k.settled:
	default:
		close(k.settled)
	}
}

// reduce keeps of an object what is decided on.
func (w *Watcher) reduce(item any) (any, error) {
	if r, is := item.(*record); is {
		return r, nil
	}
	object, err := meta.Accessor(item)
	if err != nil {
		return nil, err
	}
	r := &record{
		ObjectMeta: metav1.ObjectMeta{Name: object.GetName(), Namespace: object.GetNamespace(), ResourceVersion: object.GetResourceVersion()},
		live:       plan.LiveOf(object, w.applier.options.Manager),
		health:     Health{State: Healthy},
	}
	if whole, is := item.(*unstructured.Unstructured); is {
		r.health = w.healthOf(whole)
		r.live.Completed = whole.GetKind() == "Job" && jobEnd(whole)["type"] == "Complete"
	}
	return r, nil
}

// watch runs the watch of one kind until it fails, nobody needs it or ctx ends.
func (w *Watcher) watch(ctx context.Context, k *kindWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	informer, err := w.informer(k.kind, func(err error) { cancel(err) })
	if err != nil {
		w.fail(k, err)
		return
	}
	w.mu.Lock()
	if k.stopped {
		w.mu.Unlock()
		return
	}
	k.cancel, k.store = func() { cancel(nil) }, informer.GetStore()
	w.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		w.mu.Lock()
		k.synced, k.err, k.failure = !k.stopped, nil, 0
		k.settle()
		asked := k.asked
		k.asked = false
		w.mu.Unlock()
		if asked {
			w.tellAll(k.kind)
		}
	}
	<-done
	w.fail(k, context.Cause(ctx))
}

// informer makes the informer of one kind; broken is called when it cannot go on.
func (w *Watcher) informer(kind schema.GroupKind, broken func(error)) (cache.SharedIndexInformer, error) {
	r, err := w.applier.mapper.find(kind, "")
	if err != nil {
		return nil, err
	}
	selected := func(o *metav1.ListOptions) { o.LabelSelector = manifests.LabelApplication }
	var informer cache.SharedIndexInformer
	if w.whole(kind) {
		informer = dynamicinformer.NewFilteredDynamicInformer(w.applier.dynamic, r.gvr, "", 0, cache.Indexers{}, selected).Informer()
	} else {
		informer = metadatainformer.NewFilteredMetadataInformer(w.applier.metadata, r.gvr, "", 0, cache.Indexers{}, selected).Informer()
	}
	if err := informer.SetTransform(w.reduce); err != nil {
		return nil, err
	}
	err = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsMethodNotSupported(err) {
			broken(fmt.Errorf("watch of %s: %w", kind, err))
		}
	})
	if err != nil {
		return nil, err
	}
	_, err = informer.AddEventHandler(w.handler(kind))
	return informer, err
}

// fail drops what a broken watch had cached: nothing of it may be believed any
// more. It is started again after a pause.
func (w *Watcher) fail(k *kindWatch, err error) {
	w.mu.Lock()
	if k.stopped {
		w.mu.Unlock()
		return
	}
	had := k.synced
	k.failure++
	k.started, k.synced, k.store, k.err = false, false, nil, err
	k.retryAt = time.Now().Add(min(5*time.Second<<min(k.failure-1, 6), 5*time.Minute))
	k.settle()
	var lost []manifests.Ref
	for ref := range w.tracked {
		if ref.GroupKind() == k.kind {
			delete(w.recent, ref)
			lost = append(lost, ref)
		}
	}
	w.mu.Unlock()
	if !had {
		return
	}
	for _, ref := range lost { // to be looked at by other means
		w.tell(ref)
	}
}

// tellAll tells each Application once that a kind is known: some were told that it is not, and wait.
func (w *Watcher) tellAll(kind schema.GroupKind) {
	w.mu.Lock()
	one := map[types.NamespacedName]manifests.Ref{}
	for ref, t := range w.tracked {
		if ref.GroupKind() == kind {
			one[t.app] = ref
		}
	}
	w.mu.Unlock()
	for app, ref := range one {
		w.notify(app, ref)
	}
}

func (w *Watcher) tell(ref manifests.Ref) {
	w.mu.Lock()
	t, is := w.tracked[ref]
	w.mu.Unlock()
	if is {
		w.notify(t.app, ref)
	}
}

// handler turns cache events into notifications.
func (w *Watcher) handler(kind schema.GroupKind) cache.ResourceEventHandler {
	refOf := func(r *record) manifests.Ref {
		return manifests.Ref{Group: kind.Group, Kind: kind.Kind, Namespace: r.Namespace, Name: r.Name}
	}
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(item any, initial bool) {
			if r, is := item.(*record); is {
				w.changed(refOf(r), nil, r, initial)
			}
		},
		UpdateFunc: func(before, after any) {
			old, _ := before.(*record)
			if r, is := after.(*record); is {
				w.changed(refOf(r), old, r, false)
			}
		},
		DeleteFunc: func(item any) {
			if lost, is := item.(cache.DeletedFinalStateUnknown); is {
				item = lost.Obj
			}
			if r, is := item.(*record); is {
				w.gone(refOf(r), r)
			}
		},
	}
}

// changed decides whether an event counts.
func (w *Watcher) changed(ref manifests.Ref, before, after *record, initial bool) {
	w.mu.Lock()
	delete(w.left, ref)
	was, known := plan.Live{}, false
	if before != nil {
		was, known = before.live, true
	}
	if recent, is := w.recent[ref]; is {
		if behind(after.live, recent) {
			w.mu.Unlock()
			return
		}
		delete(w.recent, ref)
		was, known = recent, true
	}
	t, is := w.tracked[ref]
	w.mu.Unlock()
	if !is || initial {
		return
	}
	healthChanged := before == nil && w.whole(ref.GroupKind()) || before != nil && before.health.State != after.health.State
	if healthChanged || !known && !expected(t.entry, after.live) || known && differs(t.entry, was, after.live) {
		w.notify(t.app, ref)
	}
}

// differs says whether what we decide on is another than before, and not what
// the Inventory says it should be.
func differs(entry plan.Entry, was, now plan.Live) bool {
	if was.State == plan.Present && was.UID == now.UID && was.Fields == now.Fields &&
		was.Deleting == now.Deleting && was.Application == now.Application {
		return false
	}
	return !expected(entry, now)
}

// expected says whether a live object is as the Inventory has it.
func expected(entry plan.Entry, now plan.Live) bool {
	return entry.UID == now.UID && !now.Deleting && (entry.Bundled || entry.Fields == now.Fields)
}

// gone handles an object that left the watch.
func (w *Watcher) gone(ref manifests.Ref, last *record) {
	w.mu.Lock()
	recent, applied := w.recent[ref]
	if applied && (recent.State == plan.Absent || recent.UID == last.live.UID || !behind(last.live, recent)) {
		delete(w.recent, ref)
	}
	own := applied && recent.State == plan.Absent
	if d := w.deletions[ref]; d != nil && d.uid == last.live.UID {
		own, d.seen = true, true
	}
	_, is := w.tracked[ref]
	w.mu.Unlock()
	if is && !own {
		w.doubts.Add(ref)
	}
}

// behind says whether an event is older than what we know already.
func behind(event, recent plan.Live) bool {
	if recent.State == plan.Absent {
		return event.UID == recent.UID
	}
	order, err := resourceversion.CompareResourceVersion(event.ResourceVersion, recent.ResourceVersion)
	return err == nil && order < 0
}

// applied is told by Apply what the server answered: the cache may be behind that for a while.
func (w *Watcher) applied(ref manifests.Ref, live plan.Live) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kinds[ref.GroupKind()]
	if k == nil || !k.synced {
		return
	}
	delete(w.left, ref)
	if r := k.record(ref); r != nil && !behind(r.live, live) {
		return
	}
	w.recent[ref] = live
}

// deletion is one that Apply has under way.
type deletion struct {
	uid  string
	seen bool // by the watch
}

// deleting is told by Apply that it is about to delete an object: the watch may know sooner than the answer is here.
func (w *Watcher) deleting(ref manifests.Ref, uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deletions[ref] = &deletion{uid: uid}
}

// deleted is told by Apply what became of that.
func (w *Watcher) deleted(ref manifests.Ref, uid string, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.deletions[ref]
	delete(w.deletions, ref)
	k := w.kinds[ref.GroupKind()]
	switch {
	case k == nil || !k.synced:
	case d != nil && d.seen && !gone: // left the watch for another reason
		w.doubts.Add(ref)
	case d != nil && d.seen:
		w.left[ref] = departed{live: plan.Live{State: plan.Absent}, at: time.Now()}
	case gone: // the event is still to come, also when the cache has it already
		w.recent[ref] = plan.Live{State: plan.Absent, UID: uid}
	}
}
