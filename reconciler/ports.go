package reconciler

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler/expression"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Reader reads one repository. Its errors wrap gitsource.ErrUnreachable when
// nothing is known and gitsource.ErrNotFound when something is not there.
type Reader interface {
	// FetchChosen brings the commit at the ref that choose picks among those of the host.
	FetchChosen(ctx context.Context, choose func(refs map[string]gitsource.ObjectID) (string, error)) (gitsource.Revision, error)
	SnapshotOf(ctx context.Context, commit gitsource.ObjectID) (gitsource.Snapshot, error)
	CommitOf(ctx context.Context, commit gitsource.ObjectID) (gitsource.Commit, error)
}

// History is looked at only when a version has failed.
type History interface {
	// Log returns the newest limit commits that from can reach, newest first.
	Log(ctx context.Context, from gitsource.ObjectID, limit int) ([]gitsource.Commit, error)
	MergeBase(ctx context.Context, a, b gitsource.ObjectID) (gitsource.ObjectID, error)
}

// Objects reads what signatures are over.
type Objects interface {
	// Object returns a commit or an annotated tag as Git stores it, byte by byte.
	Object(ctx context.Context, id gitsource.ObjectID) ([]byte, error)
}

// Pinner keeps a commit readable that the followed branch may leave behind.
type Pinner interface {
	Pin(name string, commit gitsource.ObjectID) error
	Unpin(name string) error
}

// Writer makes commits and pushes them by compare-and-swap.
type Writer interface {
	WriteTree(base gitsource.ObjectID, changes []gitsource.Change) (gitsource.ObjectID, error)
	Commit(commit gitsource.NewCommit) (gitsource.ObjectID, error)
	Push(ctx context.Context, ref string, from, to gitsource.ObjectID) error
}

// Repository is one repository, shared by all Applications of its URL.
type Repository interface {
	Reader
	Objects
	History
	Pinner
	Writer
}

// Repositories opens the store of a repository. Opening does not use the network.
type Repositories interface {
	Open(ctx context.Context, url string, credentials Credentials) (Repository, error)
}

// Renderer turns the path of an Application, with the inputs that it names, into a Set.
type Renderer interface {
	Render(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application, inputs []Input) (Rendered, error)
}

// Rendered is a Set, and the answers of the tree that it was made from: with the same spec and inputs, a tree that gives
// the same ones renders to it again.
type Rendered struct {
	Set   manifests.Set
	Reads gitsource.Reads
}

// Cluster observes and changes live state.
type Cluster interface {
	// Track says what app owns or wants, so that it is watched.
	Track(app string, owned plan.Inventory)
	// Observe answers from watches where it can. What cannot be read is Unknown, never Absent.
	Observe(ctx context.Context, refs []manifests.Ref) plan.Observed
	// Apply carries out a plan; what was done is returned also beside an error.
	Apply(ctx context.Context, todo plan.Plan) (Applied, error)
}

// Judge tells of the health of live objects and of what changed in them.
type Judge interface {
	// Checks says how the objects of app are judged, by kind; others are judged by what is known about them. It is
	// called again and again, and equal checks change nothing.
	Checks(app string, checks map[schema.GroupKind]expression.Health)
	// Health is answered without a request.
	Health(ref manifests.Ref) Health
	// Explain says what differs from object in the cluster and who changed it.
	Explain(ctx context.Context, object *unstructured.Unstructured) string
}

// Logs reads what pods wrote.
type Logs interface {
	// Tail returns the last lines of a failed pod of a Job; empty when no pod of it is left. What it returns may hold secrets.
	Tail(ctx context.Context, job manifests.Ref, uid string) (string, error)
}

// Applied is what an apply did.
type Applied struct {
	Changes []Change
	Entries map[manifests.Ref]plan.Entry
	Gone    []manifests.Ref
}

// Change is one thing that an apply did, in the past tense.
type Change struct {
	Ref   manifests.Ref
	Verb  string
	Drift bool
}

// HealthState of an object.
type HealthState uint8

// The states. Only HealthFailed is definite; HealthProgressing may last.
const (
	HealthUnknown HealthState = iota
	HealthProgressing
	HealthHealthy
	HealthFailed
)

// Health of an object, with a message for people.
type Health struct {
	State   HealthState
	Message string
	Early   bool // of what was before: nobody has seen yet what was applied last
}

// Reverter has a revert pushed. It is asked again until Git shows the revert.
type Reverter interface {
	Revert(ctx context.Context, repository Repository, request v1alpha1.RevertRequest) (RevertAnswer, error)
}

// RevertAnswer says what became of a request.
type RevertAnswer struct {
	Commit     string // on the followed branch
	Branch     string // or where it waits for a person
	Why        string // it waits, where the request itself does not say so
	Superseded bool   // the tip has moved: compute again
}

// Verifier tells whether an image meets a requirement. Its error says that nobody knows; it is asked again.
// It remembers what it found out: of an image that has not changed it is asked again and again.
type Verifier interface {
	Verify(ctx context.Context, image string, requirement policy.Requirement) (policy.Decision, error)
}
