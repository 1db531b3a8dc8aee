package reconciler

import (
	"context"
	"maps"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// recount is how long sets wait for more of their Applications to become ready, so that sixty make no sixty writes.
const recount = time.Second

// ofApplication wakes the sets that an Application belongs or belonged to: at once when it is not as it was asked for,
// by and by when only its health changed.
func (r *ApplicationSetReconciler) ofApplication() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) {
			for _, request := range setsOf(e.Object) {
				q.Add(request)
			}
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			wake := func(reconcile.Request) {}
			switch {
			case touched(e.ObjectOld, e.ObjectNew):
				wake = q.Add
			case turned(e.ObjectOld, e.ObjectNew):
				wake = func(request reconcile.Request) { q.AddAfter(request, recount) }
			}
			for _, request := range append(setsOf(e.ObjectOld), setsOf(e.ObjectNew)...) {
				wake(request)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			for _, request := range append(setsOf(e.Object), r.waiting(ctx, e.Object)...) {
				q.Add(request)
			}
		},
	}
}

// setsOf names the set in the label and the one that is the owner; mostly that is one and the same.
func setsOf(app client.Object) []reconcile.Request {
	names := map[string]bool{}
	if label := app.GetLabels()[manifests.LabelApplicationSet]; label != "" {
		names[label] = true
	}
	if owner := metav1.GetControllerOf(app); owner != nil && owner.Kind == "ApplicationSet" {
		names[owner.Name] = true
	}
	var requests []reconcile.Request
	for name := range names {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: app.GetNamespace(), Name: name}})
	}
	return requests
}

// touched reports whether anything changed that a set writes, or the Application is on its way out.
func touched(before, after client.Object) bool {
	return before.GetGeneration() != after.GetGeneration() || !maps.Equal(before.GetLabels(), after.GetLabels()) ||
		!maps.Equal(before.GetAnnotations(), after.GetAnnotations()) ||
		!equality.Semantic.DeepEqual(before.GetOwnerReferences(), after.GetOwnerReferences()) ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero()
}

// turned reports whether an Application became ready, or is so no more.
func turned(before, after client.Object) bool {
	was, ok1 := before.(*v1alpha1.Application)
	is, ok2 := after.(*v1alpha1.Application)
	ready := func(app *v1alpha1.Application) bool {
		return conditions.IsReady(app) && app.Status.ObservedGeneration == app.Generation
	}
	return ok1 && ok2 && ready(was) != ready(is)
}

// waiting are the sets with failures: the Application that goes may have been in the way of one.
func (r *ApplicationSetReconciler) waiting(ctx context.Context, app client.Object) []reconcile.Request {
	return r.those(ctx, app.GetNamespace(), func(set *v1alpha1.ApplicationSet) bool { return set.Status.Failed > 0 })
}

// ofSource wakes the sets that look for directories or pull requests in a source, and the one that made it for a preview.
func (r *ApplicationSetReconciler) ofSource(kind string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, src client.Object) []reconcile.Request {
		return r.those(ctx, src.GetNamespace(), func(set *v1alpha1.ApplicationSet) bool {
			if kind == v1alpha1.KindGitSource && src.GetLabels()[manifests.LabelApplicationSet] == set.Name {
				return true
			}
			ref := set.Spec.Template.Spec.SourceRef
			return (set.Spec.Directories != nil || set.Spec.PullRequests != nil) && ref.Name == src.GetName() &&
				(ref.Kind == kind || kind == v1alpha1.KindGitSource && !ref.IsArtifact())
		})
	})
}

func (r *ApplicationSetReconciler) those(ctx context.Context, namespace string, which func(*v1alpha1.ApplicationSet) bool) []reconcile.Request {
	var sets v1alpha1.ApplicationSetList
	if err := r.apps.Client.List(ctx, &sets, client.InNamespace(namespace)); err != nil {
		return nil
	}
	var requests []reconcile.Request
	for i := range sets.Items {
		if which(&sets.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&sets.Items[i])})
		}
	}
	return requests
}
