package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// send applies the object of one action.
func (a *Applier) send(ctx context.Context, action plan.Action) (outcome, error) {
	r, err := a.mapper.find(action.Ref.GroupKind(), action.Version)
	if err != nil {
		return outcome{}, err
	}
	if r.namespaced && action.Ref.Namespace == "" {
		return outcome{}, apierrors.NewBadRequest("the kind is namespaced and the object names no namespace (set metadata.namespace or spec.targetNamespace)")
	}
	if action.Migrate {
		if err := a.migrate(ctx, r, action.Ref); err != nil {
			return outcome{}, fmt.Errorf("taking over fields of former tools: %w", err)
		}
	}
	if (action.Verb == plan.Configure || action.Verb == plan.Adopt) && !setsReplicas(action) {
		if err := a.handOverReplicas(ctx, r, action); err != nil {
			return outcome{}, fmt.Errorf("handing over spec.replicas: %w", err)
		}
	}
	verb := action.Verb.Past()
	applied, err := a.patch(ctx, r, action)
	if apierrors.IsInvalid(err) && action.Verb == plan.Heal {
		taken, takeErr := a.takeIntruders(ctx, r, action)
		if takeErr != nil {
			return outcome{}, fmt.Errorf("%w; taking out what others typed in: %w", err, takeErr)
		}
		if taken {
			applied, err = a.patch(ctx, r, action)
		}
	}
	if apierrors.IsInvalid(err) && a.mayRecreate(ctx, r, action) {
		verb = "recreated"
		applied, err = a.recreate(ctx, r, action)
	}
	if err != nil {
		return outcome{}, err
	}
	if action.Verb != plan.Heal && slices.ContainsFunc(applied.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Manager == plan.BeforeFirstApply }) {
		// The object had no managedFields, so its fields went to a manager that nobody is. Where ours
		// were only wiped, what others had is among them: there reclaim takes back what is ours, and no more.
		if err := a.migrate(ctx, r, action.Ref); err != nil {
			return outcome{}, fmt.Errorf("taking over fields without a manager: %w", err)
		}
		if !setsReplicas(action) {
			if err := a.handOverReplicas(ctx, r, action); err != nil {
				return outcome{}, fmt.Errorf("handing over spec.replicas: %w", err)
			}
		}
		if applied, err = a.patch(ctx, r, action); err != nil {
			return outcome{}, err
		}
	}
	if action.Verb == plan.Heal {
		if err := a.reclaim(ctx, r, action.Ref, applied); err != nil {
			return outcome{}, fmt.Errorf("taking fields back: %w", err)
		}
	}
	live := plan.LiveOf(applied, a.options.Manager)
	if w := a.watcher.Load(); w != nil {
		w.applied(action.Ref, live)
	}
	return outcome{
		change: Change{Ref: action.Ref, Verb: verb, Reason: action.Reason, UID: live.UID, Drift: action.Drift},
		entry:  &plan.Entry{Version: action.Version, UID: live.UID, Want: action.Want, Fields: live.Fields},
	}, nil
}

// patch sends one server-side apply; the answer is metadata alone. Where fields are left to others it takes more.
func (a *Applier) patch(ctx context.Context, r resource, action plan.Action) (*metav1.PartialObjectMetadata, error) {
	if action.Shared {
		return a.patchShared(ctx, r, action)
	}
	return a.applyObject(ctx, r, action.Ref, action.Object, a.applyOptions())
}

func (a *Applier) applyObject(ctx context.Context, r resource, ref manifests.Ref, object *unstructured.Unstructured, options metav1.PatchOptions) (*metav1.PartialObjectMetadata, error) {
	content, err := json.Marshal(object.Object)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	return a.metadataOf(r, ref).Patch(ctx, ref.Name, types.ApplyPatchType, content, options)
}

// mayRecreate says whether a refused object may be deleted and created again:
// it is annotated, and the server would take it as a new object, so that what
// it refuses is the change. The trial goes by another name, without effect.
func (a *Applier) mayRecreate(ctx context.Context, r resource, action plan.Action) bool {
	if action.UID == "" || action.Object.GetAnnotations()[plan.AnnotationForce] != "enabled" {
		return false
	}
	trial := action.Object.DeepCopy()
	trial.SetName(action.Ref.Name[:min(len(action.Ref.Name), 40)] + "-trial")
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	_, err := a.wholeOf(r, action.Ref).Create(ctx, trial, metav1.CreateOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: a.options.Manager,
	})
	return err == nil
}

// recreate deletes the object, waits until it is gone and applies it again.
func (a *Applier) recreate(ctx context.Context, r resource, action plan.Action) (*metav1.PartialObjectMetadata, error) {
	if _, err := a.deleteExactly(ctx, r, action.Ref, action.UID); err != nil {
		return nil, fmt.Errorf("deleting it to create it again: %w", err)
	}
	err := a.poll(ctx, func(ctx context.Context) (bool, error) {
		live := a.read(ctx, action.Ref, action.Version)
		return live.State == plan.Absent || live.State == plan.Present && live.UID != action.UID, nil
	})
	if err != nil {
		return nil, fmt.Errorf("deleted to be created again, and not gone yet: %w", err)
	}
	return a.patch(ctx, r, action)
}

// remove deletes the object of one action.
func (a *Applier) remove(ctx context.Context, action plan.Action) (outcome, error) {
	o := outcome{change: Change{Ref: action.Ref, Verb: action.Verb.Past(), Reason: action.Reason, UID: action.UID, Drift: action.Drift}}
	r, err := a.mapper.find(action.Ref.GroupKind(), "")
	if err != nil {
		return outcome{}, err
	}
	if w := a.watcher.Load(); w != nil {
		w.deleting(action.Ref, action.UID)
		defer func() { w.deleted(action.Ref, action.UID, o.gone) }()
	}
	o.gone, err = a.deleteExactly(ctx, r, action.Ref, action.UID)
	if err != nil {
		return outcome{}, err
	}
	return o, nil
}

// deleteExactly deletes the object with this UID and no other. It is true when
// the object is gone, false while it waits for finalizers.
func (a *Applier) deleteExactly(ctx context.Context, r resource, ref manifests.Ref, uid string) (bool, error) {
	if uid == "" {
		return false, fmt.Errorf("not deleted: its UID is not known")
	}
	id, background := types.UID(uid), metav1.DeletePropagationBackground
	body, err := json.Marshal(metav1.DeleteOptions{
		TypeMeta:          metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions:     &metav1.Preconditions{UID: &id},
		PropagationPolicy: &background,
	})
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	result := a.rest.Delete().AbsPath(objectPath(r, ref)...).
		SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
		Body(body).Do(ctx)
	err = result.Error() // and not that of Raw, which does not read what the server says
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	answer, err := result.Raw()
	if err != nil {
		return false, err
	}
	var kind metav1.TypeMeta // a Status when it is gone, the object while it is not
	if err := json.Unmarshal(answer, &kind); err != nil {
		return false, fmt.Errorf("answer to the deletion: %w", err)
	}
	return kind.Kind == "Status", nil
}

// objectPath is the URL path of an object.
func objectPath(r resource, ref manifests.Ref) []string {
	path := []string{"/apis", r.gvr.Group, r.gvr.Version}
	if r.gvr.Group == "" {
		path = []string{"/api", r.gvr.Version}
	}
	if r.namespaced {
		path = append(path, "namespaces", ref.Namespace)
	}
	return append(path, r.gvr.Resource, ref.Name)
}

// poll calls done until it is true, with growing pauses, for at most GateWait.
func (a *Applier) poll(ctx context.Context, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, a.options.GateWait)
	defer cancel()
	pause := 25 * time.Millisecond
	for {
		finished, err := done(ctx)
		if err != nil || finished {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}
