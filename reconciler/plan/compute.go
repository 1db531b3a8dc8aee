package plan

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Guard stops a Plan that would delete more than both of its limits. The zero Guard is DefaultGuard.
type Guard struct {
	Objects  int     // deletions that never need approval
	Fraction float64 // of the Inventory, 0 to 1
}

// DefaultGuard holds what deletes over 10 objects and over half of the Inventory.
func DefaultGuard() Guard { return Guard{Objects: 10, Fraction: 0.5} }

// Options say how far a Plan may go.
type Options struct {
	// Prune deletes what left Git; without it such objects are Kept.
	Prune bool
	// Report lists drift in Plan.Drifted instead of healing it.
	Report bool
	Guard  Guard
	// Approved says that a person approved the deletions of this very Set.
	Approved bool
}

// In is all that a Plan depends on.
type In struct {
	// Application is the value of the application label: the Application's name.
	Application string
	Want        manifests.Set
	// Bundled are the objects of Want that a Rollout moves (see Cut).
	Bundled map[manifests.Ref]bool
	// Hooks of the Set, which are not among Want (see CutHooks). They are neither applied nor pruned here.
	Hooks map[manifests.Ref]bool
	// Seen must know every object of Want and of Owned.
	Seen  Observed
	Owned Inventory
	// Yielded are objects of Want that carry the label of another Application which wants them no more: they are taken over.
	Yielded map[manifests.Ref]bool
	// Claimed are objects that left Want and that another Application wants, by its name: they are left to it.
	Claimed map[manifests.Ref]string
	// Ignore leaves fields to others.
	Ignore []v1alpha1.IgnoreRule
	// Contested are objects whose healing others undo again and again: their drift is listed in Plan.Drifted for now.
	Contested map[manifests.Ref]bool
	// InUse are objects that must not be pruned yet, with the reason ("used by the stable version of Rollout shop/web").
	InUse map[manifests.Ref]string
	// Weight is how many objects a deletion takes along, default 1: the Inventory of a pruned Application.
	Weight  map[manifests.Ref]int
	Options Options
}

// Compute decides what an apply changes. It fails with ErrEmpty, ErrUnknown, a
// *ConflictError, or an error that names the object with a bad annotation; a
// failed Compute gives no Plan at all.
func Compute(in In) (Plan, error) {
	if len(in.Want.Objects) == 0 && len(in.Hooks) == 0 {
		return Plan{}, fmt.Errorf("application %s: %w", in.Application, ErrEmpty)
	}
	refs := in.Owned.Refs()
	for _, object := range in.Want.Objects {
		refs = append(refs, manifests.RefOf(object))
	}
	if err := known(refs, in.Seen); err != nil {
		return Plan{}, err
	}
	p := Plan{
		Application: in.Application,
		SetDigest:   in.Want.Digest,
		Inventory:   in.Owned.Merge(nil, nil),
	}
	var steps []step
	for _, object := range in.Want.Objects {
		s, err := p.addWanted(in, object)
		if err != nil {
			return Plan{}, err
		}
		steps = append(steps, s...)
	}
	for _, ref := range in.Owned.Refs() {
		if in.Want.Find(ref) == nil && !in.Hooks[ref] {
			steps = append(steps, p.addUnwanted(in, ref)...)
		}
	}
	p.Stages = stages(steps)
	p.Held = held(in, p)
	return p, nil
}

// Teardown decides what the deletion of an Application deletes: all that it
// owns, by the rules of pruning. A person asked for it by name, so no Guard applies.
// What others claim is left to them.
func Teardown(application string, seen Observed, owned Inventory, claimed map[manifests.Ref]string) (Plan, error) {
	if err := known(owned.Refs(), seen); err != nil {
		return Plan{}, err
	}
	p := Plan{Application: application, Inventory: owned.Merge(nil, nil)}
	in := In{Application: application, Seen: seen, Owned: owned, Claimed: claimed, Options: Options{Prune: true}}
	var steps []step
	for _, ref := range owned.Refs() {
		steps = append(steps, p.addUnwanted(in, ref)...)
	}
	p.Stages = stages(steps)
	return p, nil
}

// Labelled returns object as it is applied, with the application label and the stringData of a Secret in data: itself if it is
// that already, else a copy.
func Labelled(object *unstructured.Unstructured, application string) *unstructured.Unstructured {
	if object.GetLabels()[manifests.LabelApplication] == application && !manifests.HasStringData(object) {
		return object
	}
	labelled := object.DeepCopy()
	labels := labelled.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[manifests.LabelApplication] = application
	labelled.SetLabels(labels)
	manifests.EncodeData(labelled)
	return labelled
}

// known fails with ErrUnknown unless the state of all refs is known.
func known(refs []manifests.Ref, seen Observed) error {
	var unknown []manifests.Ref
	for _, ref := range refs {
		if seen[ref].State == Unknown && !slices.Contains(unknown, ref) {
			unknown = append(unknown, ref)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.SortFunc(unknown, manifests.Ref.Compare)
	err := fmt.Errorf("%s: %w", unknown[0], ErrUnknown)
	if why := seen[unknown[0]].Why; why != "" {
		err = fmt.Errorf("%w: %s", err, why)
	}
	if len(unknown) > 1 {
		err = fmt.Errorf("%w (and %d more)", err, len(unknown)-1)
	}
	return err
}

// held says why a person has to approve p first.
func held(in In, p Plan) string {
	guard := in.Options.Guard
	if guard == (Guard{}) {
		guard = DefaultGuard()
	}
	weight := func(ref manifests.Ref) int { return max(1, in.Weight[ref]) }
	deleted, owned := 0, 0
	for _, action := range p.Actions() {
		if action.Verb == Delete {
			deleted += weight(action.Ref)
		}
	}
	for ref := range in.Owned {
		owned += weight(ref)
	}
	if in.Options.Approved || deleted <= guard.Objects || float64(deleted) <= guard.Fraction*float64(owned) {
		return ""
	}
	return fmt.Sprintf("would delete %d of %d objects; nothing is applied until this is approved: "+
		"kubectl annotate application %s --overwrite %s=%s",
		deleted, owned, in.Application, manifests.AnnotationApprovePrune, in.Want.Digest)
}
