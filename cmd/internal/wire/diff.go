package wire

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Difference is what applying would do to one object.
type Difference struct {
	Object string   `json:"object"`
	Verb   string   `json:"verb"` // create, change or delete
	Fields []string `json:"fields,omitempty"`
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

// Diff renders app at snapshot and asks the API server what applying it would change. Nothing is changed.
func (d *Differ) Diff(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application) ([]Difference, error) {
	inputs, err := reconciler.ReadInputs(ctx, d.kube, app)
	if err != nil {
		return nil, err
	}
	set, err := d.renderer.Render(ctx, snapshot, app, inputs)
	if err != nil {
		return nil, err
	}
	_, bundled, err := plan.Cut(set)
	if err != nil {
		return nil, err
	}
	var all []Difference
	wanted := map[manifests.Ref]bool{}
	for _, object := range set.Objects {
		ref := manifests.RefOf(object)
		wanted[ref] = true
		applier, want := d.applier, plan.Labelled(object, app.Name)
		if bundled[ref] {
			applier = d.rollout
			if want, err = d.asBundled(ctx, want); err != nil {
				return nil, err
			}
		}
		diff, err := applier.DryRun(ctx, want)
		if err != nil {
			return nil, err
		}
		if diff.Create {
			all = append(all, Difference{Object: ref.String(), Verb: "create"})
			continue
		}
		if fields := visible(diff.Fields); len(fields) > 0 {
			all = append(all, Difference{Object: ref.String(), Verb: "change", Fields: fields})
		}
	}
	pruned, err := d.pruned(ctx, app, wanted)
	return append(all, pruned...), err
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

func (d *Differ) pruned(ctx context.Context, app *v1alpha1.Application, wanted map[manifests.Ref]bool) ([]Difference, error) {
	if app.Spec.Prune != nil && !*app.Spec.Prune {
		return nil, nil
	}
	var shards v1alpha1.InventoryList
	if err := d.kube.List(ctx, &shards, client.InNamespace(app.Namespace)); err != nil {
		return nil, fmt.Errorf("inventory of %s: %w", app.Name, err)
	}
	var all []Difference
	for _, shard := range shards.Items {
		if shard.Spec.Application != app.Name {
			continue
		}
		for _, entry := range shard.Spec.Entries {
			ref := manifests.Ref{Group: entry.Group, Kind: entry.Kind, Namespace: entry.Namespace, Name: entry.Name}
			stored := entry.Kind == "ControllerRevision" && entry.Group == "apps" || entry.Kind == "Secret" && !wanted[ref] && d.isBundle(ctx, ref)
			if !wanted[ref] && !stored {
				all = append(all, Difference{Object: ref.String(), Verb: "delete"})
			}
		}
	}
	slices.SortFunc(all, func(a, b Difference) int { return strings.Compare(a.Object, b.Object) })
	return all, nil
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
