package plan

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
)

// Hook is a Job of a Set that runs once, at one point of the Set's way.
type Hook struct {
	Ref    manifests.Ref
	When   string // manifests.HookPreApply, HookPostApply or HookOnFailure
	Wave   int    // hooks of the same When run wave by wave
	Object *unstructured.Unstructured
}

// Secrets lists the Secrets that the pods of the hook can read, so that their values can be masked in its log.
func (h Hook) Secrets() []manifests.Ref {
	pod, _, _ := unstructured.NestedMap(h.Object.Object, "spec", "template", "spec")
	return slices.DeleteFunc(podConfig(pod, h.Ref.Namespace), func(ref manifests.Ref) bool { return ref.Kind != "Secret" })
}

// CutHooks takes the hooks out of set, ordered by wave and Ref. The rest keeps the digest of set: that is how the Set is
// known to people, and a hook that changes makes it another Set. What is annotated and no Job stays in the rest. It fails on
// an unknown word.
func CutHooks(set manifests.Set) (rest manifests.Set, hooks []Hook, err error) {
	var others []*unstructured.Unstructured
	for _, object := range set.Objects {
		when, is := object.GetAnnotations()[manifests.AnnotationHook]
		hook, err := hookOf(object, when)
		switch ref := hook.Ref; {
		case !is:
			others = append(others, object)
		case err != nil:
			return manifests.Set{}, nil, err
		case ref.Group == "batch" && ref.Kind == "Job":
			hooks = append(hooks, hook)
		default:
			others = append(others, object)
		}
	}
	slices.SortStableFunc(hooks, func(a, b Hook) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), a.Ref.Compare(b.Ref))
	})
	return manifests.Set{Objects: others, Digest: set.Digest}, hooks, nil
}

func hookOf(object *unstructured.Unstructured, when string) (Hook, error) {
	ref := manifests.RefOf(object)
	switch when {
	case manifests.HookPreApply, manifests.HookPostApply, manifests.HookOnFailure:
	default:
		return Hook{}, fmt.Errorf("%s: annotation %s: %q is not one of %s, %s, %s", ref, manifests.AnnotationHook, when,
			manifests.HookPreApply, manifests.HookPostApply, manifests.HookOnFailure)
	}
	at, err := wantedPlace(object)
	return Hook{Ref: ref, When: when, Wave: at.wave, Object: object}, err
}

// HookWaves groups the hooks of one When by wave, in order.
func HookWaves(hooks []Hook, when string) [][]Hook {
	var waves [][]Hook
	for _, hook := range hooks {
		switch last := len(waves) - 1; {
		case hook.When != when:
		case last >= 0 && waves[last][0].Wave == hook.Wave:
			waves[last] = append(waves[last], hook)
		default:
			waves = append(waves, []Hook{hook})
		}
	}
	return waves
}

// Started is the Job that runs for set: labelled, noting the Set, and without the time after which it is removed when it
// has finished. Else it could be gone before anybody has seen how it ended, and would run twice.
func (h Hook) Started(application string, set manifests.Digest) *unstructured.Unstructured {
	object := h.Kept(application, set)
	unstructured.RemoveNestedField(object.Object, "spec", "ttlSecondsAfterFinished")
	return object
}

// Kept is the Job as it is kept when it has finished and that is on record: it may be removed from then on.
func (h Hook) Kept(application string, set manifests.Digest) *unstructured.Unstructured {
	object := Labelled(h.Object.DeepCopy(), application)
	annotations := object.GetAnnotations()
	annotations[manifests.AnnotationHookSet] = string(set)
	object.SetAnnotations(annotations)
	return object
}

// Expires says whether the Job is to be removed some time after it has finished.
func (h Hook) Expires() bool {
	_, set, _ := unstructured.NestedFieldNoCopy(h.Object.Object, "spec", "ttlSecondsAfterFinished")
	return set
}

// StartHooks decides what brings hooks on the way for set: a Job that an earlier Set left under the name of a hook is
// deleted, and one that is not there is created. A hook that runs for set already, or whose name a Job still holds that is
// being deleted, needs nothing. It fails with ErrUnknown, or a *ConflictError, or when a Job of that name is none of ours.
func StartHooks(application string, set manifests.Digest, hooks []Hook, seen Observed, owned Inventory) (Plan, error) {
	var refs []manifests.Ref
	for _, hook := range hooks {
		refs = append(refs, hook.Ref)
	}
	if err := known(refs, seen); err != nil {
		return Plan{}, err
	}
	p := Plan{Application: application, SetDigest: set, Inventory: owned.Merge(nil, nil)}
	var steps []step
	for _, hook := range hooks {
		live := seen[hook.Ref]
		action := Action{Ref: hook.Ref, Version: hook.Object.GroupVersionKind().Version, UID: live.UID}
		at := place{phase: waves, wave: hook.Wave}
		switch {
		case live.State == Absent:
			action.Verb, action.Reason, action.Object = Create, hook.When+" hook", hook.Started(application, set)
			digest, err := manifests.ObjectDigest(action.Object)
			if err != nil {
				return Plan{}, err
			}
			action.Want = digest
		case live.Application != "" && live.Application != application:
			return Plan{}, &ConflictError{Ref: hook.Ref, Application: application, Owner: live.Application}
		case live.HookSet == string(set) || live.Deleting:
			continue
		case !live.Ours || live.Application != application:
			return Plan{}, fmt.Errorf("%s: the name of a hook is taken%s (delete that Job, or rename the hook)", hook.Ref, by(live))
		default:
			action.Verb, action.Reason, at = Delete, "ran for another Set", place{phase: pruneWaves}
		}
		steps = append(steps, step{place: at, action: action})
	}
	p.Stages = stages(steps)
	return p, nil
}

// KeepHook returns the Plan that lets a finished hook be removed after its time.
func KeepHook(application string, set manifests.Digest, hook Hook, owned Inventory) (Plan, error) {
	object := hook.Kept(application, set)
	digest, err := manifests.ObjectDigest(object)
	if err != nil {
		return Plan{}, err
	}
	action := Action{
		Verb: Configure, Ref: hook.Ref, Version: hook.Object.GroupVersionKind().Version, Object: object, Want: digest,
		UID: owned[hook.Ref].UID, Reason: "has finished",
	}
	return Plan{
		Application: application, SetDigest: set, Inventory: owned.Merge(nil, nil),
		Stages: stages([]step{{place: place{phase: waves, wave: hook.Wave}, action: action}}),
	}, nil
}

// Foundation is the part of the Plan that comes before hooks: CustomResourceDefinitions, Namespaces and what hooks use.
func (p Plan) Foundation() Plan {
	p.Stages = slices.DeleteFunc(slices.Clone(p.Stages), func(s Stage) bool { return !s.Foundation })
	return p
}
