package apply

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Options of an Applier. Zero values take the default in brackets.
type Options struct {
	Config   *rest.Config  // required; copied
	Manager  string        // field manager [manifests.FieldManager]
	Parallel int           // requests at a time within one Apply or Observe [20]
	Timeout  time.Duration // of one request [30s]
	GateWait time.Duration // for CRDs to be established, namespaces active, forced deletions done [60s]
	Refresh  time.Duration // least time between two discoveries that look for a missing kind [5s]
}

// Applier carries out Plans on one cluster. It is safe for concurrent use.
type Applier struct{}

// New checks the options. It sends nothing: the first use discovers the served kinds.
func New(o Options) (*Applier, error) { return nil, nil }

// Change is one action that was carried out.
type Change struct {
	Ref    manifests.Ref
	Verb   string // past tense: "created", "configured", "healed", "adopted", "recreated", "deleted"
	Reason string
	UID    string
	Drift  bool
}

// Event tells of one action while an Apply runs: Change when Err is nil.
type Event struct {
	Stage  string
	Ref    manifests.Ref
	Change Change
	Err    error // *ObjectError
}

// Result is what an Apply did, also when it failed.
type Result struct {
	Done []Change // ordered by stage, then Ref
	// Entries to put into the Inventory and Gone to take out: plan.Inventory.Merge(Entries, Gone).
	Entries map[manifests.Ref]plan.Entry
	Gone    []manifests.Ref
	// Errors are the objects that failed; Skipped are the actions of stages that were not begun.
	Errors  []*ObjectError
	Skipped []manifests.Ref
}

// ObjectError is the API server's answer about one object.
type ObjectError struct {
	Ref manifests.Ref
	// Rejected says that the server refused the object itself (invalid, forbidden, unknown kind):
	// trying again without a change does not help. Otherwise the cause may pass.
	Rejected bool
	Cause    error
}

// Error names the object and gives the server's message.
func (e *ObjectError) Error() string { return e.Ref.String() + ": " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *ObjectError) Unwrap() error { return e.Cause }

// Apply carries out p stage by stage, one server-side-apply PATCH for each
// object. Within a stage all objects are tried; a stage with errors ends the
// Apply, and the error joins all of its ObjectErrors. It refuses a held Plan.
// on may be nil; it is called from one goroutine at a time.
func (a *Applier) Apply(ctx context.Context, p plan.Plan, on func(Event)) (Result, error) {
	return Result{}, nil
}

// Observe returns the live state of refs: from the watches where they are
// synced, else with one GET each. Errors become Unknown with the reason.
// versions gives the API version of kinds, where known; it may be nil.
func (a *Applier) Observe(ctx context.Context, refs []manifests.Ref) plan.Observed { return nil }

// DryRun asks the server what applying object would change.
func (a *Applier) DryRun(ctx context.Context, object *unstructured.Unstructured) (Diff, error) {
	return Diff{}, nil
}

// Diff is what applying an object would change.
type Diff struct {
	Ref    manifests.Ref
	Create bool        // the object is not there
	Fields []FieldDiff // ordered by Path
}

// FieldDiff is one field that differs or that was taken from us. Values of
// Secrets are masked. Live == Want means that only its ownership was lost.
type FieldDiff struct {
	Path     string // "spec.template.spec.containers[web].image"
	Live     string // JSON, shortened; "" when the field is not there
	Want     string
	Managers []string // others that own the live field
}

// String reads from live to wanted: "spec.replicas: 5 -> 3 (kubectl-scale)".
func (f FieldDiff) String() string { return "" }

// Drift reads from wanted to live, as one tells of a drift: "spec.replicas: 3 -> 5 (kubectl-scale)".
func (f FieldDiff) Drift() string { return "" }
