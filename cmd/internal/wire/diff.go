package wire

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/plan"
	"github.com/slipway-cd/slipway/rollout"
)

// Difference is what applying would do to one object.
type Difference struct {
	Object string   `json:"object"`
	Verb   string   `json:"verb"` // create, change, delete, keep or refuse
	Fields []string `json:"fields,omitempty"`
	// Note says why an object that left Git is kept, or what could not be tried.
	Note string `json:"note,omitempty"`
	// Error is why the API server would refuse the object.
	Error string `json:"error,omitempty"`
}

// Changes are what applying a commit would do to one Application.
type Changes struct {
	SetDigest   manifests.Digest
	Differences []Difference // ordered by object, what left Git last
	Unchanged   int
	// Held says why the agent would apply nothing until a person approves.
	Held string
}

// Differ compares what a commit renders to with what runs.
type Differ struct {
	kube             client.Client
	renderer         *renderer
	applier, rollout *apply.Applier
}

// NewDiffer connects to a cluster. Close ends the children that render.
func NewDiffer(config *rest.Config, kube client.Client, cacheDir string) (*Differ, error) {
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	version, err := found.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w", config.Host, err)
	}
	d := &Differ{kube: kube}
	if d.applier, err = apply.New(apply.Options{Config: config, Manager: manifests.FieldManager}); err != nil {
		return nil, err
	}
	// What a Rollout moves is applied by the rollout loop, so that is whose change it would be.
	if d.rollout, err = apply.New(apply.Options{Config: config, Manager: manifests.RolloutManager}); err != nil {
		return nil, err
	}
	d.renderer, err = newRenderer(filepath.Join(cacheDir, "memo"), version.GitVersion, prometheus.NewRegistry())
	return d, err
}

// Close ends the children that render.
func (d *Differ) Close() error { return d.renderer.pool.Close() }

// Render returns what app is at snapshot, with the inputs that the cluster holds now.
func (d *Differ) Render(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application) (manifests.Set, error) {
	inputs, err := reconciler.ReadInputs(ctx, d.kube, app)
	if err != nil {
		return manifests.Set{}, err
	}
	rendered, err := d.renderer.Render(ctx, snapshot, app, inputs)
	return rendered.Set, err
}

// Diff renders app at snapshot and asks the API server what applying it would change. Nothing is changed.
func (d *Differ) Diff(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application) (Changes, error) {
	set, err := d.Render(ctx, snapshot, app)
	if err != nil {
		return Changes{}, err
	}
	_, bundled, err := plan.Cut(set)
	if err != nil {
		return Changes{}, err
	}
	t := &trial{Differ: d, app: app, set: set, bundled: bundled}
	if t.hide, err = d.hider(ctx, app, set); err != nil {
		return Changes{}, err
	}
	changes := Changes{SetDigest: set.Digest}
	for _, one := range t.all(ctx) {
		if one.err != nil {
			return Changes{}, one.err
		}
		if one.Verb == "" {
			changes.Unchanged++
			continue
		}
		changes.Differences = append(changes.Differences, one.Difference)
	}
	pruned, held, err := t.pruned(ctx)
	changes.Differences, changes.Held = append(changes.Differences, pruned...), held
	return changes, err
}

// DiffObject is Diff for one object of what app is at snapshot; false if it is not in there.
func (d *Differ) DiffObject(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application, ref manifests.Ref) (Difference, bool, error) {
	set, err := d.Render(ctx, snapshot, app)
	if err != nil {
		return Difference{}, false, err
	}
	object := set.Find(ref)
	if object == nil {
		return Difference{}, false, nil
	}
	_, bundled, err := plan.Cut(set)
	if err != nil {
		return Difference{}, false, err
	}
	t := &trial{Differ: d, app: app, set: set, bundled: bundled}
	if t.hide, err = d.hider(ctx, app, set); err != nil {
		return Difference{}, false, err
	}
	one, err := t.object(ctx, object)
	return one, true, err
}

// trial is one Set on its way through dry runs.
type trial struct {
	*Differ
	app     *v1alpha1.Application
	set     manifests.Set
	bundled map[manifests.Ref]bool
	hide    func(string) string
}

// tried is what a dry run of one object gave.
type tried struct {
	Difference
	err error
}

// atATime bounds the dry runs that are under way.
const atATime = 10

// all tries each object of the Set.
func (t *trial) all(ctx context.Context) []tried {
	results := make([]tried, len(t.set.Objects))
	var trying sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for i, object := range t.set.Objects {
		slots <- struct{}{}
		trying.Go(func() {
			defer func() { <-slots }()
			results[i].Difference, results[i].err = t.object(ctx, object)
		})
	}
	trying.Wait()
	return results
}

// object tries one object. The verb is empty if nothing would change.
func (t *trial) object(ctx context.Context, object *unstructured.Unstructured) (Difference, error) {
	ref := manifests.RefOf(object)
	applier, want := t.applier, reconciler.WithFinalizer(plan.Labelled(object, t.app.Name), t.app.Namespace)
	if t.bundled[ref] {
		var err error
		applier = t.rollout
		if want, err = t.asBundled(ctx, want); err != nil {
			return Difference{}, err
		}
		want = rollout.WithCopies(want, t.moved(ref.Namespace))
	}
	diff, err := applier.DryRunHiding(ctx, want, t.hide)
	if err != nil {
		return t.refused(ref, err)
	}
	if diff.Create {
		return Difference{Object: ref.String(), Verb: "create"}, nil
	}
	if fields := visible(diff.Fields); len(fields) > 0 {
		return Difference{Object: ref.String(), Verb: "change", Fields: fields}, nil
	}
	return Difference{Object: ref.String()}, nil
}

// moved are the objects of a namespace that Rollouts move.
func (t *trial) moved(namespace string) (objects []*unstructured.Unstructured) {
	for _, object := range t.set.Objects {
		if t.bundled[manifests.RefOf(object)] && object.GetNamespace() == namespace {
			objects = append(objects, object)
		}
	}
	return objects
}

// refused says what the server's answer means: that the Set itself brings what is missing, or that it would refuse the object.
func (t *trial) refused(ref manifests.Ref, err error) (Difference, error) {
	difference := Difference{Object: ref.String(), Verb: "create"}
	var refusal *apply.ObjectError
	switch {
	case !errors.As(err, &refusal):
		return Difference{}, err
	case meta.IsNoMatchError(err) && t.defines(ref.GroupKind()):
		difference.Note = "not tried: its CustomResourceDefinition comes with it"
	case apierrors.IsNotFound(err) && ref.Namespace != "" && t.set.Find(manifests.Ref{Kind: "Namespace", Name: ref.Namespace}) != nil:
		difference.Note = "not tried: its namespace comes with it"
	case refusal.Rejected, apierrors.IsNotFound(err):
		difference.Verb, difference.Error = "refuse", t.hide(refusal.Cause.Error())
	default:
		return Difference{}, err
	}
	return difference, nil
}

// defines says whether the Set brings the definition of a kind.
func (t *trial) defines(kind schema.GroupKind) bool {
	return slices.ContainsFunc(t.set.Objects, func(object *unstructured.Unstructured) bool {
		group, _, _ := unstructured.NestedString(object.Object, "spec", "group")
		name, _, _ := unstructured.NestedString(object.Object, "spec", "names", "kind")
		return object.GetKind() == "CustomResourceDefinition" && group == kind.Group && name == kind.Kind
	})
}

// asBundled gives object the annotations with which the rollout loop notes what it applied.
func (d *Differ) asBundled(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	live := &metav1.PartialObjectMetadata{}
	live.SetGroupVersionKind(object.GroupVersionKind())
	err := d.kube.Get(ctx, client.ObjectKeyFromObject(object), live)
	if apierrors.IsNotFound(err) {
		return object, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", manifests.RefOf(object), err)
	}
	noted := object.DeepCopy()
	annotations := noted.GetAnnotations()
	for key, value := range live.Annotations {
		if _, set := annotations[key]; set || !strings.HasPrefix(key, v1alpha1.Group+"/") {
			continue
		}
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[key] = value
	}
	noted.SetAnnotations(annotations)
	return noted, nil
}

// visible leaves out what Slipway itself writes beside what stands in Git.
func visible(fields []apply.FieldDiff) []string {
	var out []string
	for _, field := range fields {
		if !strings.HasPrefix(field.Path, "spec.bundle") && !strings.Contains(field.Path, v1alpha1.Group+"/") {
			out = append(out, field.String())
		}
	}
	return out
}

// pruned says what becomes of the objects that are not in the Set, by the rules of the agent's plan.
func (t *trial) pruned(ctx context.Context) (all []Difference, held string, err error) {
	owned, weights, err := t.inventory(ctx)
	if err != nil {
		return nil, "", err
	}
	inUse := map[manifests.Ref]string{}
	refs := owned.Refs()
	for _, object := range t.set.Objects {
		refs = append(refs, manifests.RefOf(object))
	}
	for ref := range owned {
		if ref.Group == "apps" && ref.Kind == "ControllerRevision" || ref.Kind == "Secret" && t.set.Find(ref) == nil && t.isBundle(ctx, ref) {
			inUse[ref] = storedBundle
		}
	}
	todo, err := plan.Compute(plan.In{
		Application: t.app.Name, Want: t.set, Bundled: t.bundled, Seen: t.applier.Observe(ctx, refs), Owned: owned, InUse: inUse, Weight: weights,
		Options: plan.Options{
			Prune:    t.app.Spec.Prune == nil || *t.app.Spec.Prune,
			Approved: t.app.Annotations[manifests.AnnotationApprovePrune] == string(t.set.Digest),
		},
	})
	if err != nil {
		return nil, "", err
	}
	for _, action := range todo.Actions() {
		if action.Verb == plan.Delete {
			all = append(all, Difference{Object: action.Ref.String(), Verb: "delete"})
		}
	}
	for _, action := range todo.Kept {
		if inUse[action.Ref] == "" {
			all = append(all, Difference{Object: action.Ref.String(), Verb: "keep", Note: action.Reason})
		}
	}
	slices.SortFunc(all, func(a, b Difference) int { return strings.Compare(a.Object, b.Object) })
	return all, todo.Held, nil
}

// storedBundle is why Bundles are left alone here: they come and go with Rollouts, not with Git.
const storedBundle = "stores a Bundle"

// inventory reads what app owns, and how much a pruned Application takes along.
func (t *trial) inventory(ctx context.Context) (plan.Inventory, map[manifests.Ref]int, error) {
	var shards v1alpha1.InventoryList
	if err := t.kube.List(ctx, &shards, client.InNamespace(t.app.Namespace)); err != nil {
		return nil, nil, fmt.Errorf("inventory of %s: %w", t.app.Name, err)
	}
	var entries []v1alpha1.InventoryEntry
	weights := map[manifests.Ref]int{}
	for _, shard := range shards.Items {
		if shard.Spec.Application == t.app.Name {
			entries = append(entries, shard.Spec.Entries...)
		}
		weights[manifests.Ref{Group: v1alpha1.Group, Kind: "Application", Namespace: t.app.Namespace, Name: shard.Spec.Application}] += len(shard.Spec.Entries)
	}
	owned, err := plan.FromEntries(entries)
	if err != nil {
		return nil, nil, fmt.Errorf("inventory of %s: %w", t.app.Name, err)
	}
	return owned, weights, nil
}

// isBundle reports whether a Secret stores a Bundle: those come and go with Rollouts, not with Git.
func (d *Differ) isBundle(ctx context.Context, ref manifests.Ref) bool {
	var revisions v1alpha1.RolloutList
	if d.kube.List(ctx, &revisions, client.InNamespace(ref.Namespace)) != nil {
		return false
	}
	return slices.ContainsFunc(revisions.Items, func(r v1alpha1.Rollout) bool {
		return r.Spec.Bundle != nil && r.Spec.Bundle.Name == ref.Name || r.Status.Stable != nil && r.Status.Stable.Name == ref.Name
	})
}
