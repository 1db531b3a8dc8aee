package plan

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// addWanted decides about one object of the Set.
func (p *Plan) addWanted(in In, object *unstructured.Unstructured) ([]step, error) {
	ref := manifests.RefOf(object)
	live := in.Seen[ref]
	if label := object.GetLabels()[manifests.LabelApplication]; label != "" && label != in.Application {
		return nil, &ConflictError{Ref: ref, Application: in.Application, Owner: label}
	}
	handedOver := ""
	if live.Application != "" && live.Application != in.Application {
		if !in.Yielded[ref] {
			return nil, &ConflictError{Ref: ref, Application: in.Application, Owner: live.Application}
		}
		handedOver = live.Application
	}
	at, err := wantedPlace(object)
	if err != nil {
		return nil, err
	}
	labelled := Labelled(object, in.Application)
	kept, err := ignored(in.Ignore, labelled)
	if err != nil {
		return nil, err
	}
	if kept != labelled && in.Bundled[ref] {
		return nil, fmt.Errorf("%s: a Rollout moves it, so that spec.ignore cannot leave fields of it to others", ref)
	}
	digest, err := manifests.ObjectDigest(kept)
	if err != nil {
		return nil, err
	}
	action := Action{Ref: ref, Version: object.GroupVersionKind().Version, Object: kept, Want: digest, UID: live.UID, Shared: kept != labelled}
	if in.Bundled[ref] {
		p.Inventory[ref] = Entry{Version: action.Version, UID: live.UID, Want: digest, Bundled: true}
		p.Unchanged++
		return nil, nil
	}
	if live.State == Present && live.Deleting {
		p.Waiting = append(p.Waiting, ref)
		return nil, nil
	}
	entry, owned := in.Owned[ref]
	if owned && p.expired(action, entry, live) {
		p.Unchanged++
		return nil, nil
	}
	action = decide(action, entry, owned, live)
	if handedOver != "" && !in.Bundled[ref] {
		action.Verb, action.Reason, action.Drift = Adopt, "handed over by Application "+handedOver, false
	}
	if action.Shared && action.Verb == Create {
		action.Initial = labelled
	}
	switch {
	case action.Verb == Keep:
		p.Unchanged++
		return nil, nil
	case action.Drift && (in.Options.Report || in.Contested[ref]):
		p.Drifted = append(p.Drifted, action)
		return nil, nil
	}
	return []step{{place: at, action: action}}, nil
}

// expired reports whether a wanted Job has run and is not to run again, and notes what is known of that.
func (p *Plan) expired(action Action, entry Entry, live Live) bool {
	if entry.Want != action.Want || entry.UID == "" {
		return false
	}
	if live.State == Present {
		if live.Completed && live.UID == entry.UID && !entry.Done {
			entry.Done = true
			p.Inventory[action.Ref] = entry
		}
		return false
	}
	_, expires, _ := unstructured.NestedFieldNoCopy(action.Object.Object, "spec", "ttlSecondsAfterFinished")
	if action.Ref.Group != "batch" || action.Ref.Kind != "Job" || !expires {
		return false
	}
	if !entry.Done {
		p.Vanished = append(p.Vanished, action.Ref)
	}
	return true
}

// decide chooses the verb for a wanted object. It is left alone only when the
// Inventory, Git and the cluster agree.
func decide(action Action, entry Entry, owned bool, live Live) Action {
	first := !owned || entry.UID == ""
	action.Migrate = live.State == Present &&
		(live.former() && (first || entry.UID != live.UID || !live.Ours) || live.rolledOut())
	switch {
	case live.State == Absent && first:
		action.Verb, action.Reason = Create, "new"
	case live.State == Absent && entry.Want != action.Want:
		action.Verb, action.Reason = Create, "changed in Git, and somebody deleted it"
	case live.State == Absent:
		action.Verb, action.Reason, action.Drift = Create, "somebody deleted it", true
	case first && live.Ours:
		action.Verb, action.Reason = Adopt, "applied before, not in the inventory"
	case first:
		action.Verb, action.Reason = Adopt, "exists already"+by(live)
	case entry.Bundled:
		action.Verb, action.Reason = Configure, "no Rollout moves it any more"
	case entry.Want != action.Want:
		action.Verb, action.Reason = Configure, "changed in Git"
	case entry.UID != live.UID:
		action.Verb, action.Reason, action.Drift = Heal, "somebody replaced it"+by(live), true
	case !live.Ours:
		action.Verb, action.Reason, action.Drift = Heal, "our managedFields entry is gone"+by(live), true
	case live.Fields != entry.Fields:
		action.Verb, action.Reason, action.Drift = Heal, "fields were taken from us"+by(live), true
	}
	return action
}

// by names the other managers of a live object: "; managed by helm, kubectl-edit".
func by(live Live) string {
	others := live.others(manifests.FieldManager)
	if len(others) == 0 {
		return ""
	}
	return "; managed by " + strings.Join(others, ", ")
}

// addUnwanted decides about one object that is owned and not in the Set. What
// is deleted is ours without doubt: the very object that was applied, or one
// that carries both our label and our fields.
func (p *Plan) addUnwanted(in In, ref manifests.Ref) []step {
	entry, live := in.Owned[ref], in.Seen[ref]
	action := Action{Ref: ref, Version: entry.Version, UID: live.UID}
	labelled := live.Application == in.Application && (live.Ours || live.rolledOut())
	switch {
	case live.State == Absent:
		action.Verb, action.Reason = Forget, "left Git and is gone"
	case live.Application != "" && live.Application != in.Application:
		action.Verb, action.Reason = Forget, "belongs to Application "+live.Application+" now"
	case live.UID != entry.UID && !labelled:
		action.Verb, action.Reason = Forget, "left Git; what is there now is not ours"+by(live)
	case in.Claimed[ref] != "":
		action.Reason = "left Git; Application " + in.Claimed[ref] + " takes it over"
	case live.Deleting:
		action.Reason = "is being deleted"
	case !in.Options.Prune:
		action.Reason = "left Git; pruning is off"
	case protection(ref, live.Prune) != "":
		action.Reason = "left Git; " + protection(ref, live.Prune)
	case in.InUse[ref] != "":
		action.Reason = "left Git; " + in.InUse[ref]
	default:
		action.Verb, action.Reason = Delete, "left Git"
		return []step{{place: prunePlace(ref, live.Wave), action: action}}
	}
	if action.Verb == Forget {
		delete(p.Inventory, ref)
		p.Forgotten = append(p.Forgotten, action)
	} else {
		p.Kept = append(p.Kept, action)
	}
	return nil
}

// protection says why an object must not be pruned; empty when it may.
func protection(ref manifests.Ref, annotation string) string {
	switch {
	case annotation == "disabled":
		return "annotated " + manifests.AnnotationPrune + "=disabled"
	case keptKind(ref) && annotation != "enabled":
		return ref.Kind + " is kept unless annotated " + manifests.AnnotationPrune + "=enabled"
	}
	return ""
}

// keptKind says whether deleting the object would take along what cannot be brought back from Git.
func keptKind(ref manifests.Ref) bool {
	switch ref.Group {
	case "":
		return ref.Kind == "Namespace" || ref.Kind == "PersistentVolume" || ref.Kind == "PersistentVolumeClaim"
	case "apiextensions.k8s.io":
		return ref.Kind == "CustomResourceDefinition"
	case v1alpha1.Group:
		return ref.Kind == "Application" || ref.Kind == "ApplicationSet"
	}
	return false
}
