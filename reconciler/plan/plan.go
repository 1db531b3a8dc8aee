package plan

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
)

// AnnotationForce set to "enabled" on an object in Git allows deleting and
// creating it again when a change is refused because a field is immutable.
const AnnotationForce = "slipway.dev/force"

// Errors of Compute that callers branch on.
var (
	// ErrEmpty is returned for a Set without objects: an empty render must not prune everything.
	ErrEmpty = errors.New("renders no objects; nothing is pruned")
	// ErrUnknown is returned when the live state of a wanted or owned object is not known.
	ErrUnknown = errors.New("live state unknown")
)

// ConflictError says that a wanted object belongs to another Application.
type ConflictError struct {
	Ref         manifests.Ref
	Application string // that wants it
	Owner       string // that has it
}

// Error names the object and both Applications.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: belongs to Application %s, Application %s wants it too (remove it from one of them)", e.Ref, e.Owner, e.Application)
}

// Verb is what is done with one object.
type Verb uint8

// The verbs. Keep and Forget send nothing.
const (
	Keep      Verb = iota // leave it alone
	Create                // it is not there
	Configure             // Git asks for something else than before
	Heal                  // others changed it or took fields from us
	Adopt                 // it is there and was not ours
	Delete                // it left Git
	Forget                // it is gone or not ours any more: drop it from the Inventory
)

// String returns the verb in lower case, as an imperative: "create".
func (v Verb) String() string {
	switch v {
	case Create:
		return "create"
	case Configure:
		return "configure"
	case Heal:
		return "heal"
	case Adopt:
		return "adopt"
	case Delete:
		return "delete"
	case Forget:
		return "forget"
	default:
		return "keep"
	}
}

// Past returns what a carried out verb is called: "created".
func (v Verb) Past() string {
	switch v {
	case Forget:
		return "forgotten"
	case Keep:
		return "kept"
	case Heal, Adopt:
		return v.String() + "ed"
	default:
		return v.String() + "d"
	}
}

// Action is what is done with one object, and why.
type Action struct {
	Verb Verb
	Ref  manifests.Ref
	// Version of the API to use, without the group.
	Version string
	// Object to send, with the application label; nil for Keep, Delete and Forget. Not to be changed.
	Object *unstructured.Unstructured
	// Want is the digest of Object.
	Want manifests.Digest
	// Shared says that Object leaves fields to others. They keep what they are when we let go of them; a new object gets
	// them from Initial.
	Shared  bool
	Initial *unstructured.Unstructured
	// UID that the live object must have; empty when it is not there.
	UID string
	// Migrate says that fields of former tools, or of the rollout loop, are to be made ours first.
	Migrate bool
	// Drift says that the cause lies in the cluster, not in Git.
	Drift  bool
	Reason string
}

// Gate is what has to hold before the next stage begins.
type Gate uint8

// The gates.
const (
	Open        Gate = iota // nothing
	Established             // CustomResourceDefinitions are established and served
	Active                  // Namespaces are active
)

// Stage is a group of actions that are carried out together. A later stage
// begins only when all of this one have succeeded and its Gate holds.
type Stage struct {
	Name string // "crds", "namespaces", "wave 0", "prune"
	Gate Gate
	// Foundation says that hooks come after it.
	Foundation bool
	Actions    []Action // ordered by Ref; Keep and Forget do not occur
}

// Plan is what an apply would change. It is a value: printing, comparing and
// carrying it out are separate things.
type Plan struct {
	Application string
	SetDigest   manifests.Digest
	Stages      []Stage
	// Kept are objects that left Git and stay, with the reason. Only their Ref and Reason are set.
	Kept []Action
	// Forgotten are objects that leave the Inventory without a request.
	Forgotten []Action
	// Drifted are objects that differ while Options.Report is set: what Heal would be done otherwise.
	Drifted []Action
	// Waiting are wanted objects that are being deleted; they are created once they are gone.
	Waiting []manifests.Ref
	// Held says why nothing may be carried out until a person approves; empty when it may.
	Held string
	// Vanished are Jobs that are to be removed some time after they have finished, and are gone without having been seen
	// to complete. They are not created again: what they did, they may have done.
	Vanished []manifests.Ref
	// Unchanged counts the wanted objects that are left alone.
	Unchanged int
	// Inventory is Owned without Forgotten and with what was learned about bundled objects.
	Inventory Inventory
}

// Empty says whether nothing would be sent.
func (p Plan) Empty() bool { return len(p.Stages) == 0 }

// Actions returns the actions of all stages, in order.
func (p Plan) Actions() []Action {
	var actions []Action
	for _, stage := range p.Stages {
		actions = append(actions, stage.Actions...)
	}
	return actions
}

// Intended is Inventory plus the objects that the Plan brings in, without UID
// and digests. Stored before the apply, it makes sure that nothing which was
// created is ever missing from the Inventory, however the apply ends.
func (p Plan) Intended() Inventory {
	entries := map[manifests.Ref]Entry{}
	for _, action := range p.Actions() {
		if _, listed := p.Inventory[action.Ref]; !listed && action.Object != nil {
			entries[action.Ref] = Entry{Version: action.Version}
		}
	}
	return p.Inventory.Merge(entries, nil)
}

// String returns the Plan as text for people, one line for each object:
//
//	wave 0:
//	  create    Deployment shop/web: new
//	prune:
//	  delete    ConfigMap shop/old: left Git
//	3 unchanged
func (p Plan) String() string {
	var b strings.Builder
	if p.Held != "" {
		fmt.Fprintf(&b, "held: %s\n", p.Held)
	}
	for _, stage := range p.Stages {
		fmt.Fprintf(&b, "%s:\n", stage.Name)
		writeActions(&b, stage.Actions)
	}
	for _, list := range []struct {
		name    string
		actions []Action
	}{{"drifted", p.Drifted}, {"kept", p.Kept}, {"forgotten", p.Forgotten}} {
		if len(list.actions) > 0 {
			fmt.Fprintf(&b, "%s:\n", list.name)
			writeActions(&b, list.actions)
		}
	}
	for _, ref := range p.Waiting {
		fmt.Fprintf(&b, "waiting: %s is being deleted\n", ref)
	}
	for _, ref := range p.Vanished {
		fmt.Fprintf(&b, "vanished: %s, nobody knows how it ended\n", ref)
	}
	fmt.Fprintf(&b, "%d unchanged\n", p.Unchanged)
	return b.String()
}

func writeActions(b *strings.Builder, actions []Action) {
	for _, a := range actions {
		fmt.Fprintf(b, "  %-9s %s: %s\n", a.Verb, a.Ref, a.Reason)
	}
}
