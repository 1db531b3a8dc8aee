package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Options of the loop.
type Options struct {
	// Events receives what people should know; required.
	Events record.EventRecorder
	// Meter measures; without one every metric is unavailable, which pauses.
	Meter Meter
	// Servers asks those that Rollouts name themselves; without it none of them answers.
	Servers Servers
	// Metrics is where the collectors are registered; nil for nowhere.
	Metrics prometheus.Registerer
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Concurrency is how many Rollouts are worked on at once; default 4.
	Concurrency int
	// Drain is how long nothing that had traffic is taken away after traffic was moved: gateways and nodes hear of it a
	// moment later. Default 5 s.
	Drain time.Duration
	// Patience is how long looking at the pods of a version that has failed may hold up its traffic's return. Default 500 ms.
	Patience time.Duration
	// Failpoint is called at named points (see Failpoints), for tests that kill the process there; nil for none.
	Failpoint func(name string)
}

// Finalizer keeps a Rollout until its objects have been handed back.
const Finalizer = v1alpha1.Group + "/rollout"

// Reconciler is the loop. New makes one.
type Reconciler struct {
	options Options
	metrics *metrics
	client  client.Client // reads Rollouts from the manager's cache
	direct  client.Reader // reads from the API server
	seen    client.Reader // metadata and reduced Deployments of Applications, from a cache

	readings readings
	sizes    sizes
	trials   trials
	outbox   *outbox
	routes   routeWatches
}

// New checks options and registers the collectors.
func New(options Options) (*Reconciler, error) {
	if options.Events == nil {
		return nil, errors.New("rollout: Options.Events is required")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Concurrency <= 0 {
		options.Concurrency = 4
	}
	if options.Patience <= 0 {
		options.Patience = 500 * time.Millisecond
	}
	if options.Drain <= 0 {
		options.Drain = 5 * time.Second
	}
	if options.Failpoint == nil {
		options.Failpoint = func(string) {}
	}
	collectors, err := newMetrics(options.Metrics)
	if err != nil {
		return nil, fmt.Errorf("rollout: metrics: %w", err)
	}
	r := &Reconciler{options: options, metrics: collectors}
	r.outbox = newOutbox(r)
	r.readings.last = map[types.NamespacedName]map[string]reading{}
	r.sizes.of = map[types.NamespacedName][]size{}
	return r, nil
}

// SetupWithManager adds the loop to mgr, with a cache of its own for what
// Applications own: reduced to what is looked at here. The scheme of mgr has to
// know v1alpha1 and the kinds of Kubernetes.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.client, r.direct = mgr.GetClient(), mgr.GetAPIReader()
	own, err := newCache(mgr)
	if err != nil {
		return fmt.Errorf("rollout: cache: %w", err)
	}
	r.seen = own
	for field, index := range indexes() {
		if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.Rollout{}, field, index); err != nil {
			return fmt.Errorf("rollout: index: %w", err)
		}
	}
	builder := ctrl.NewControllerManagedBy(mgr).
		Named("rollout").
		For(&v1alpha1.Rollout{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.options.Concurrency})
	for _, source := range r.sources(own) {
		builder = builder.WatchesRawSource(source)
	}
	if r.routes.controller, err = builder.Build(r); err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	if err := r.outbox.setup(mgr); err != nil {
		return fmt.Errorf("rollout: events: %w", err)
	}
	r.routes.cache, r.routes.watched = own, map[string]bool{}
	return nil
}
