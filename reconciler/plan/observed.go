package plan

import (
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// State says what is known about an object in the cluster.
type State uint8

// The states. Unknown is what an error, a timeout or an unsynced watch gives,
// and what a missing map entry means: it is never Absent.
const (
	Unknown State = iota
	Absent
	Present
)

// String returns "unknown", "absent" or "present".
func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Present:
		return "present"
	default:
		return "unknown"
	}
}

// Manager is one field manager of a live object.
type Manager struct {
	Name        string
	Operation   string // "Apply" or "Update"
	Subresource string // "status", "scale"; usually empty
}

// Live is what was seen of one object.
type Live struct {
	State State
	// Why the State is Unknown, for people: "watch of apps/Deployment is not synced".
	Why string

	UID             string
	ResourceVersion string
	// Ours says that we have a managedFields entry; Fields is its digest, empty without one.
	Ours     bool
	Fields   manifests.Digest
	Managers []Manager
	// Application is the value of the label, Prune and Wave are those of the annotations.
	Application string
	Prune       string
	Wave        string
	// HookSet is the Set that a hook runs for.
	HookSet string
	// Beside says that the rollout loop runs the object beside a stable version for a while and takes it away again.
	Beside bool
	// Stored says that the object belongs to a Rollout, as a stored Bundle does: it is made here and stands in nobody's Git.
	Stored bool
	// Completed says that the object is a Job that has completed. Only a watch of whole objects knows.
	Completed bool
	// Deleting says that the object has a deletionTimestamp and waits for finalizers.
	Deleting bool
}

// Observed is the live state of objects. A Ref that is not in it is Unknown.
type Observed map[manifests.Ref]Live

// LiveOf reads a Present Live from an object's metadata; manager is our field manager.
func LiveOf(object metav1.Object, manager string) Live {
	live := Live{
		State:           Present,
		UID:             string(object.GetUID()),
		ResourceVersion: object.GetResourceVersion(),
		Application:     object.GetLabels()[manifests.LabelApplication],
		Prune:           object.GetAnnotations()[manifests.AnnotationPrune],
		Wave:            object.GetAnnotations()[manifests.AnnotationWave],
		HookSet:         object.GetAnnotations()[manifests.AnnotationHookSet],
		Beside:          object.GetLabels()[manifests.LabelCanary] != "",
		Stored:          slices.ContainsFunc(object.GetOwnerReferences(), ofRollout),
		Deleting:        object.GetDeletionTimestamp() != nil,
	}
	entries := object.GetManagedFields()
	live.Fields, live.Ours = FieldsDigest(entries, manager)
	for _, e := range entries {
		live.Managers = append(live.Managers, Manager{Name: e.Manager, Operation: string(e.Operation), Subresource: e.Subresource})
	}
	return live
}

func ofRollout(owner metav1.OwnerReference) bool {
	return owner.Kind == "Rollout" && owner.APIVersion == v1alpha1.GroupVersion().String()
}

// FieldsDigest digests the managedFields entry that manager got by server-side
// apply, without its time. It is false when there is none. The digest changes
// when anybody takes a field from us, and not when others add fields of their own.
func FieldsDigest(entries []metav1.ManagedFieldsEntry, manager string) (manifests.Digest, bool) {
	var parts []string
	for _, e := range entries {
		if e.Manager != manager || e.Operation != metav1.ManagedFieldsOperationApply || e.Subresource != "" {
			continue
		}
		var raw []byte
		if e.FieldsV1 != nil {
			raw = e.FieldsV1.GetRawBytes()
		}
		parts = append(parts, fmt.Sprintf("%s %s %s", e.APIVersion, e.FieldsType, canonical(raw)))
	}
	if len(parts) == 0 {
		return "", false
	}
	slices.Sort(parts)
	return manifests.DigestOf(fmt.Appendf(nil, "%q", parts)), true
}

// canonical re-encodes JSON with sorted keys: clients hand the same entry over in different orders.
func canonical(raw []byte) []byte {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return raw
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return raw
	}
	return encoded
}

// Former says whether the manager is a tool that the reconciler takes the
// object over from: its fields become ours, so that later removals work.
// People's own edits (kubectl-edit, kubectl-scale) and controllers are not.
func Former(m Manager) bool {
	if m.Subresource != "" {
		return false
	}
	switch m.Name {
	case "kubectl-client-side-apply", "kubectl-last-applied", "kubectl-create", "kubectl-replace", "kubectl",
		BeforeFirstApply, "slipway-install",
		"helm", "helm-controller", "kustomize-controller", "argocd-controller", "argocd-application-controller":
		return true
	}
	return false
}

// BeforeFirstApply is the manager that the API server invents for the fields
// of an object that had no managedFields when it was first applied.
const BeforeFirstApply = "before-first-apply"

// former says whether any manager's fields have to be migrated.
func (l Live) former() bool { return slices.ContainsFunc(l.Managers, Former) }

// rolledOut says whether the rollout loop has applied the object.
func (l Live) rolledOut() bool {
	return slices.ContainsFunc(l.Managers, func(m Manager) bool {
		return m.Name == manifests.RolloutManager && m.Operation == string(metav1.ManagedFieldsOperationApply)
	})
}

// others names the managers of l that are not ours and not of a subresource, for reasons.
func (l Live) others(manager string) []string {
	var names []string
	for _, m := range l.Managers {
		if m.Name != manager && m.Subresource != "status" && !slices.Contains(names, m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}
