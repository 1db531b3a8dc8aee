package rollout

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
	"github.com/slipway-cd/slipway/rollout/gateway"
)

// newCache holds the objects of Applications, reduced, and nothing else of the cluster.
func newCache(mgr ctrl.Manager) (cache.Cache, error) {
	labelled, err := labels.NewRequirement(manifests.LabelApplication, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	own, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient:           mgr.GetHTTPClient(),
		Scheme:               mgr.GetScheme(),
		Mapper:               mgr.GetRESTMapper(),
		DefaultLabelSelector: labels.NewSelector().Add(*labelled),
		DefaultTransform:     reduce,
	})
	if err != nil {
		return nil, err
	}
	return own, mgr.Add(own)
}

// reduce drops what is not looked at: the fields of other managers, and the pods of workloads.
func reduce(object any) (any, error) {
	meta, is := object.(metav1.Object)
	if !is {
		return object, nil
	}
	entries := meta.GetManagedFields()
	for i := range entries {
		if entries[i].Manager != manifests.RolloutManager {
			entries[i].FieldsV1 = nil
		}
	}
	annotations := map[string]string{}
	for _, key := range []string{manifests.AnnotationBundle, manifests.AnnotationFailedBundle, manifests.AnnotationTraffic} {
		if value, set := meta.GetAnnotations()[key]; set {
			annotations[key] = value
		}
	}
	meta.SetAnnotations(annotations)
	if deployment, is := object.(*appsv1.Deployment); is {
		deployment.Spec = appsv1.DeploymentSpec{Replicas: deployment.Spec.Replicas, Paused: deployment.Spec.Paused}
	}
	if set, is := object.(*appsv1.StatefulSet); is {
		set.Spec = appsv1.StatefulSetSpec{Replicas: set.Spec.Replicas, UpdateStrategy: set.Spec.UpdateStrategy, Ordinals: set.Spec.Ordinals}
	}
	return object, nil
}

// bundleKinds are the kinds besides the workload and Routes that a Bundle may have; metadata is all that is kept of them.
func bundleKinds() []metav1.TypeMeta {
	return []metav1.TypeMeta{
		{APIVersion: "v1", Kind: "Service"},
		{APIVersion: "v1", Kind: "ConfigMap"},
		{APIVersion: "v1", Kind: "Secret"},
	}
}

// sources wake a Rollout when its workload or an object of its Bundle changes.
func (r *Reconciler) sources(own cache.Cache) []source.Source {
	sources := []source.Source{
		source.Kind(own, client.Object(&appsv1.Deployment{}), handler.EnqueueRequestsFromMapFunc(r.owners)),
		source.Kind(own, client.Object(&appsv1.StatefulSet{}), handler.EnqueueRequestsFromMapFunc(r.owners)),
	}
	for _, kind := range bundleKinds() {
		object := &metav1.PartialObjectMetadata{TypeMeta: kind}
		sources = append(sources, source.Kind(own, client.Object(object), r.ofApplied(kind.Kind)))
	}
	sources = append(sources, source.Channel(r.outbox.news, &handler.EnqueueRequestForObject{}))
	return sources
}

// routeVersion is the one that Routes are watched in.
const routeVersion = "v1"

// watchRoutes begins to watch the kinds of Routes that a Rollout names: not every cluster knows them, and a watch of a kind
// that is missing would keep the agent from starting.
func (r *Reconciler) watchRoutes(rollout *v1alpha1.Rollout) error {
	r.routes.Lock()
	defer r.routes.Unlock()
	for _, ref := range plan.RoutesOf(rollout.Namespace, rollout.Spec) {
		if r.routes.watched[ref.Kind] {
			continue
		}
		if _, err := r.client.RESTMapper().RESTMapping(ref.GroupKind(), routeVersion); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
		object := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: gateway.Group + "/" + routeVersion, Kind: ref.Kind}}
		if err := r.routes.controller.Watch(source.Kind(r.routes.cache, client.Object(object), r.ofApplied(ref.Kind))); err != nil {
			return fmt.Errorf("%s: watch: %w", ref, err)
		}
		r.routes.watched[ref.Kind] = true
	}
	return nil
}

// routeWatches are the watches of Routes, which begin when the first Rollout names one of their kind.
type routeWatches struct {
	sync.Mutex
	controller controller.Controller
	cache      cache.Cache
	watched    map[string]bool // by kind
}

// ofApplied finds the Rollouts that have applied an object.
func (r *Reconciler) ofApplied(kind string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []reconcile.Request {
		return r.rollouts(ctx, object.GetNamespace(), indexApplied, kind+"/"+object.GetName())
	})
}

// owners are the Rollouts of a workload.
func (r *Reconciler) owners(ctx context.Context, object client.Object) []reconcile.Request {
	return r.rollouts(ctx, object.GetNamespace(), indexWorkload, object.GetName())
}

// Fields that Rollouts are found by.
const (
	indexWorkload = "rollout.workload"
	indexApplied  = "rollout.applied"
)

func indexes() map[string]client.IndexerFunc {
	return map[string]client.IndexerFunc{
		indexWorkload: func(object client.Object) []string {
			rollout, _ := object.(*v1alpha1.Rollout)
			return []string{rollout.Spec.WorkloadRef.Name, canaryName(rollout)}
		},
		indexApplied: func(object client.Object) []string {
			rollout, _ := object.(*v1alpha1.Rollout)
			var keys []string
			for _, applied := range rollout.Status.Applied {
				keys = append(keys, applied.Kind+"/"+applied.Name)
			}
			return keys
		},
	}
}

func (r *Reconciler) rollouts(ctx context.Context, namespace, field, value string) []reconcile.Request {
	var list v1alpha1.RolloutList
	err := r.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{field: value}, client.UnsafeDisableDeepCopy)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "cannot find the rollouts of an object", "namespace", namespace, "object", value)
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: list.Items[i].Name}})
	}
	return requests
}
