package rollout

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

const (
	// outboxSize is how many occasions wait at most; beyond it the oldest are dropped.
	outboxSize = 16
	// outboxAge is how long one waits at most.
	outboxAge = 24 * time.Hour
)

// outbox tells webhooks of type Event what has happened. What is to be told stands in the status, written together with
// what it is about, so that no kill loses it; whoever was told is remembered here until the status says so, so that a kill
// may tell it twice. It works beside the loop, which never waits for it.
type outbox struct {
	r *Reconciler

	mu   sync.Mutex
	told map[types.NamespacedName]map[string]bool // by occasion and webhook
	// news wakes the loop when something was told.
	news chan event.GenericEvent
}

func newOutbox(r *Reconciler) *outbox {
	return &outbox{r: r, told: map[types.NamespacedName]map[string]bool{}, news: make(chan event.GenericEvent, 1024)}
}

func occasionKey(o v1alpha1.RolloutOccasion, webhook string) string {
	return fmt.Sprintf("%s %s %s %d %d %s", o.Bundle, o.What, o.Reason, o.Step, o.At.Unix(), webhook)
}

// listeners are the webhooks that are told of what happens.
func listeners(rollout *v1alpha1.Rollout) (hooks []v1alpha1.RolloutWebhook) {
	for _, hook := range webhooksOf(rollout.Spec.Strategy) {
		if hook.Type == v1alpha1.HookEvent {
			hooks = append(hooks, hook)
		}
	}
	return hooks
}

// left is what is still to be told of what stands in the status, and of what has happened since.
func (b *outbox) left(rollout *v1alpha1.Rollout, more []v1alpha1.RolloutOccasion, now time.Time) (left []v1alpha1.RolloutOccasion) {
	hooks := listeners(rollout)
	if len(hooks) == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	told := b.told[keyOf(rollout)]
	for _, o := range rollout.Status.Outbox {
		if now.Sub(o.At.Time) < outboxAge && !toldAll(told, o, hooks) {
			left = append(left, o)
		}
	}
	left = append(left, more...)
	return left[max(len(left)-outboxSize, 0):]
}

func toldAll(told map[string]bool, o v1alpha1.RolloutOccasion, hooks []v1alpha1.RolloutWebhook) bool {
	for _, hook := range hooks {
		if !told[occasionKey(o, hook.Name)] {
			return false
		}
	}
	return true
}

// dropped forgets who was told of what does not stand in the status any more.
func (b *outbox) dropped(rollout *v1alpha1.Rollout) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.told[keyOf(rollout)] {
		stands := false
		for _, o := range rollout.Status.Outbox {
			stands = stands || strings.HasPrefix(key, occasionKey(o, ""))
		}
		if !stands {
			delete(b.told[keyOf(rollout)], key)
		}
	}
}

func (b *outbox) forget(rollout types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.told, rollout)
}

// setup adds a queue of its own to mgr.
func (b *outbox) setup(mgr ctrl.Manager) error {
	waits := predicate.NewPredicateFuncs(func(object client.Object) bool {
		rollout, is := object.(*v1alpha1.Rollout)
		return is && len(rollout.Status.Outbox) > 0
	})
	return ctrl.NewControllerManagedBy(mgr).Named("rollout-events").
		For(&v1alpha1.Rollout{}, builder.WithPredicates(waits)).
		WithOptions(controller.Options{MaxConcurrentReconciles: b.r.options.Concurrency}).
		Complete(b)
}

// Reconcile tells of what waits, in order, until a webhook does not take it.
func (b *outbox) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var rollout v1alpha1.Rollout
	if err := b.r.client.Get(ctx, request.NamespacedName, &rollout); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	for _, occasion := range rollout.Status.Outbox {
		for _, hook := range listeners(&rollout) {
			if b.has(request.NamespacedName, occasionKey(occasion, hook.Name)) {
				continue
			}
			if err := b.r.post(ctx, &rollout, hook, b.r.callAbout(&rollout, hook, occasion)); err != nil {
				ctrl.LoggerFrom(ctx).Info("a webhook was not told", "webhook", hook.Name, "what", occasion.What, "cause", err.Error())
				return ctrl.Result{RequeueAfter: max(hook.Interval.Duration, time.Second)}, nil
			}
			b.took(request.NamespacedName, occasionKey(occasion, hook.Name))
		}
		select {
		case b.news <- event.GenericEvent{Object: &rollout}:
		default: // the loop is woken already
		}
	}
	return ctrl.Result{}, nil
}

func (b *outbox) has(rollout types.NamespacedName, key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told[rollout][key]
}

func (b *outbox) took(rollout types.NamespacedName, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.told[rollout] == nil {
		b.told[rollout] = map[string]bool{}
	}
	b.told[rollout][key] = true
}

// callAbout is what a webhook is sent about something that happened.
func (r *Reconciler) callAbout(rollout *v1alpha1.Rollout, hook v1alpha1.RolloutWebhook, occasion v1alpha1.RolloutOccasion) v1alpha1.RolloutCall {
	target := v1alpha1.BundleRef{Digest: occasion.Bundle, Revision: occasion.Revision}
	call := r.callOf(rollout, analysis.State{Phase: occasion.Phase, Target: &target}, hook)
	call.Step, call.Weight, call.Event = occasion.Step, occasion.Weight, &occasion
	return call
}
