package wire

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/notice"
	"github.com/slipway-cd/slipway/reconciler/notice/deliver"
)

// notifier tells receivers what becomes of Applications and Rollouts. It learns that from the caches like everybody. Each
// receiver has a goroutine of its own, for which the newest message about each object waits: a dead receiver costs neither the
// loops nor the other receivers anything.
type notifier struct {
	mgr       manager.Manager
	namespace string
	cluster   string
	now       func() time.Time
	log       logr.Logger
	sender    *deliver.Sender
	counts    *noticeCounts

	mu        sync.Mutex
	receivers map[string]*receiver
	running   sync.WaitGroup
}

const lookForKind = 5 * time.Second // how often to look whether a definition has come

// addNotifier adds the loop to those of the leading agent.
func addNotifier(mgr manager.Manager, o AgentOptions) error {
	counts, err := newNoticeCounts(metrics.Registry)
	if err != nil {
		return err
	}
	n := &notifier{
		mgr: mgr, namespace: o.Namespace, cluster: o.Cluster, now: o.Now, log: o.Log.WithName("notify"), sender: deliver.New(), counts: counts,
		receivers: map[string]*receiver{},
	}
	return mgr.Add(manager.RunnableFunc(n.run))
}

func (n *notifier) run(ctx context.Context) error {
	defer n.running.Wait()
	for _, watch := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandlerDetailedFuncs
	}{
		// Receivers first: what changes from now on finds them.
		{&v1alpha1.Notification{}, toolscache.ResourceEventHandlerDetailedFuncs{
			AddFunc:    func(object any, _ bool) { n.follow(ctx, object) },
			UpdateFunc: func(_, object any) { n.follow(ctx, object) },
			DeleteFunc: n.forget,
		}},
		{&v1alpha1.Application{}, toolscache.ResourceEventHandlerDetailedFuncs{
			AddFunc:    func(object any, initial bool) { n.application(ctx, nil, object, initial) },
			UpdateFunc: func(before, object any) { n.application(ctx, before, object, false) },
			DeleteFunc: func(object any) { n.removed(ctx, object) },
		}},
		{&v1alpha1.Rollout{}, toolscache.ResourceEventHandlerDetailedFuncs{
			AddFunc:    func(object any, initial bool) { n.rollout(ctx, nil, object, initial) },
			UpdateFunc: func(before, object any) { n.rollout(ctx, before, object, false) },
			DeleteFunc: func(object any) { n.removed(ctx, object) },
		}},
	} {
		informer, err := n.informer(ctx, watch.object)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("notifications: %w", err)
		}
		registered, err := informer.AddEventHandler(watch.handler)
		if err != nil {
			return fmt.Errorf("notifications: %w", err)
		}
		defer func() { _ = informer.RemoveEventHandler(registered) }() // it ends with the process anyway
		if !toolscache.WaitForCacheSync(ctx.Done(), registered.HasSynced) {
			return nil
		}
	}
	<-ctx.Done()
	return nil
}

// informer waits until a kind is served: an agent may be newer than the definitions of its cluster.
func (n *notifier) informer(ctx context.Context, object client.Object) (cache.Informer, error) {
	for {
		informer, err := n.mgr.GetCache().GetInformer(ctx, object)
		if !meta.IsNoMatchError(err) {
			return informer, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lookForKind):
		}
	}
}

// follow starts a receiver anew when its spec has changed.
func (n *notifier) follow(ctx context.Context, object any) {
	notification, is := object.(*v1alpha1.Notification)
	if !is {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.receivers[notification.Name]; old != nil {
		if old.generation == notification.Generation && old.uid == notification.UID {
			return
		}
		old.end()
	}
	rule, err := notice.Parse(notification.Spec)
	r := &receiver{
		n: n, name: notification.Name, uid: notification.UID, spec: *notification.Spec.DeepCopy(),
		generation: notification.Generation, observed: notification.Status.ObservedGeneration,
		rule: rule, invalid: err, heard: make(chan struct{}, 1),
	}
	running, end := context.WithCancel(ctx)
	r.end = end
	n.receivers[notification.Name] = r
	n.running.Go(func() { r.run(running) })
}

func (n *notifier) forget(object any) {
	if last, is := object.(toolscache.DeletedFinalStateUnknown); is {
		object = last.Obj
	}
	notification, is := object.(*v1alpha1.Notification)
	if !is {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.receivers[notification.Name]; old != nil {
		old.end()
		delete(n.receivers, notification.Name)
		n.counts.forget(notification.Name)
	}
}

// conditioned is an Application or Rollout.
type conditioned interface{ GetConditions() []metav1.Condition }

// changed returns the condition Ready if it says something else than before. What is there when an agent starts is no news.
func changed(before any, now conditioned, initial bool) *metav1.Condition {
	ready := meta.FindStatusCondition(now.GetConditions(), v1alpha1.ConditionReady)
	if initial || ready == nil {
		return nil
	}
	old, is := before.(conditioned)
	if !is {
		return ready
	}
	was := meta.FindStatusCondition(old.GetConditions(), v1alpha1.ConditionReady)
	if was != nil && was.Status == ready.Status && was.Reason == ready.Reason && was.Message == ready.Message {
		return nil
	}
	return ready
}

func (n *notifier) application(ctx context.Context, before, object any, initial bool) {
	app, is := object.(*v1alpha1.Application)
	if !is {
		return
	}
	ready := changed(before, app, initial)
	if ready == nil {
		return
	}
	n.tell(app.Labels, notice.Message{
		Cluster: n.cluster, Kind: "Application", Namespace: app.Namespace, Name: app.Name, Application: app.Name, Environment: app.Spec.Environment,
		Ready: string(ready.Status), Reason: ready.Reason, Message: ready.Message, Revision: n.revision(ctx, app, ready),
	})
}

// removed tells that an Application or Rollout is gone, whatever it was like: an alert about it is over.
func (n *notifier) removed(ctx context.Context, object any) {
	if last, is := object.(toolscache.DeletedFinalStateUnknown); is {
		object = last.Obj
	}
	m := notice.Message{Cluster: n.cluster, Ready: string(metav1.ConditionUnknown), Reason: notice.Removed, Message: "it is gone"}
	switch o := object.(type) {
	case *v1alpha1.Application:
		m.Kind, m.Namespace, m.Name, m.Application, m.Environment = "Application", o.Namespace, o.Name, o.Name, o.Spec.Environment
		n.tell(o.Labels, m)
	case *v1alpha1.Rollout:
		app := n.applicationOf(ctx, o)
		m.Kind, m.Namespace, m.Name, m.Application, m.Environment = "Rollout", o.Namespace, o.Name, o.Labels[manifests.LabelApplication], app.Spec.Environment
		n.tell(app.Labels, m)
	}
}

// applicationOf returns an empty one if there is none.
func (n *notifier) applicationOf(ctx context.Context, rollout *v1alpha1.Rollout) *v1alpha1.Application {
	app := &v1alpha1.Application{}
	key := types.NamespacedName{Namespace: n.namespace, Name: rollout.Labels[manifests.LabelApplication]}
	if err := n.mgr.GetClient().Get(ctx, key, app); err != nil {
		return &v1alpha1.Application{}
	}
	return app
}

// revision is what a condition is about: what is applied, what was looked at, or what did not render. It is empty for what comes
// from a registry.
func (n *notifier) revision(ctx context.Context, app *v1alpha1.Application, ready *metav1.Condition) string {
	attempted, applied := app.Status.Attempted, app.Status.Applied
	switch {
	case app.Spec.SourceRef.IsArtifact():
		return ""
	case ready.Status == metav1.ConditionTrue && applied != nil:
		return applied.Revision
	case ready.Reason == v1alpha1.ReasonRenderFailed || ready.Reason == v1alpha1.ReasonEmptyRender:
		if source, err := n.source(ctx, app); err == nil {
			return source.Status.Revision
		}
	case attempted != nil:
		return attempted.Revision
	}
	return ""
}

func (n *notifier) source(ctx context.Context, app *v1alpha1.Application) (*v1alpha1.GitSource, error) {
	source := &v1alpha1.GitSource{}
	if app.Spec.SourceRef.IsArtifact() {
		return nil, fmt.Errorf("application %s follows no Git repository", app.Name)
	}
	err := n.mgr.GetClient().Get(ctx, types.NamespacedName{Namespace: n.namespace, Name: app.Spec.SourceRef.Name}, source)
	return source, err
}

func (n *notifier) rollout(ctx context.Context, before, object any, initial bool) {
	rollout, is := object.(*v1alpha1.Rollout)
	if !is {
		return
	}
	ready := changed(before, rollout, initial)
	if ready == nil {
		return
	}
	app := n.applicationOf(ctx, rollout)
	m := notice.Message{
		Cluster: n.cluster, Kind: "Rollout", Namespace: rollout.Namespace, Name: rollout.Name, Application: rollout.Labels[manifests.LabelApplication],
		Environment: app.Spec.Environment, Ready: string(ready.Status), Reason: ready.Reason, Message: ready.Message,
	}
	if target := rollout.Status.Target; target != nil && !app.Spec.SourceRef.IsArtifact() {
		m.Revision = target.Revision
	}
	n.tell(app.Labels, m)
}

// tell has each receiver whom a message concerns hear of it. It never waits.
func (n *notifier) tell(labels map[string]string, m notice.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, r := range n.receivers {
		if r.invalid != nil || !r.rule.Concerns(m, labels) {
			continue
		}
		if why := r.rule.Hear(&r.past, m, n.now()); why != "" {
			n.counts.dropped.WithLabelValues(name, why).Inc()
		}
		select {
		case r.heard <- struct{}{}:
		default: // it is awake
		}
	}
}

// next returns what a receiver is told now, or when to look again.
func (n *notifier) next(r *receiver) (*notice.Message, time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return r.rule.Next(&r.past, n.now())
}
