package plan

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
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
	// Seen must know every object of Want and of Owned.
	Seen  Observed
	Owned Inventory
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
	return Plan{}, nil
}

// Teardown decides what the deletion of an Application deletes: all that it
// owns, by the rules of pruning. A person asked for it by name, so no Guard applies.
func Teardown(application string, seen Observed, owned Inventory) (Plan, error) {
	return Plan{}, nil
}

// Labelled returns object with the application label: itself if it has it, else a copy.
func Labelled(object *unstructured.Unstructured, application string) *unstructured.Unstructured {
	return object
}
