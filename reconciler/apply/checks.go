package apply

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/expression"
)

// Checks says how an Application judges its objects; kinds that it does not name are judged by HealthOf. The watches of
// kinds whose checks are new or others than before start again, since they keep verdicts and no objects; that of other
// kinds goes on. Equal checks change nothing. It does not block.
func (w *Watcher) Checks(app types.NamespacedName, checks map[schema.GroupKind]expression.Health) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.checks[app.Name]
	if maps.Equal(before, checks) {
		return
	}
	delete(w.checks, app.Name)
	if len(checks) > 0 {
		w.checks[app.Name] = maps.Clone(checks)
	}
	changed := map[schema.GroupKind]bool{}
	for kind := range before {
		changed[kind] = before[kind] != checks[kind]
	}
	for kind := range checks {
		changed[kind] = before[kind] != checks[kind]
	}
	for kind, is := range changed {
		if k := w.kinds[kind]; is && k != nil {
			k.stop()
			delete(w.kinds, kind)
		}
	}
	w.addKinds()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// whole says whether objects of a kind are judged, so that their watch has to carry all of them.
func (w *Watcher) whole(kind schema.GroupKind) bool {
	if judged(kind) {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.checked(kind)
}

// checked says whether an Application has a check for the kind. The caller holds mu.
func (w *Watcher) checked(kind schema.GroupKind) bool {
	for _, checks := range w.checks {
		if _, is := checks[kind]; is {
			return true
		}
	}
	return false
}

// healthOf judges an object as its Application wants it.
func (w *Watcher) healthOf(object *unstructured.Unstructured) Health {
	w.mu.Lock()
	check, is := w.checks[object.GetLabels()[manifests.LabelApplication]][object.GroupVersionKind().GroupKind()]
	w.mu.Unlock()
	if !is {
		return HealthOf(object)
	}
	if object.GetDeletionTimestamp() != nil {
		return Health{State: Progressing, Message: "is being deleted"}
	}
	state, message := check.Judge(object.Object)
	switch state {
	case expression.Current:
		return Health{State: Healthy, Message: message}
	case expression.Failed:
		return Health{State: Failed, Message: "spec.healthChecks: failed: " + message}
	case expression.InProgress:
		return Health{State: Progressing, Message: "spec.healthChecks: " + message}
	default:
		return Health{Message: "spec.healthChecks: " + message}
	}
}
