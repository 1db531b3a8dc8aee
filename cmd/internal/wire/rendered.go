package wire

import (
	"context"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// RenderedDiff is promoter.Diff: what a folder renders to, before and after. Which Application follows the folder, and with
// which Helm values and cluster, it does not know: charts are shown with the values that lie beside them.
type RenderedDiff struct{ renderer *renderer }

// NewRenderedDiff starts no child before the first use. Close ends them.
func NewRenderedDiff(cacheDir string, metrics prometheus.Registerer) (*RenderedDiff, error) {
	r, err := newRenderer(filepath.Join(cacheDir, "memo"), "", metrics)
	if err != nil {
		return nil, err
	}
	r.keepEncrypted = true // whoever promotes has no keys
	return &RenderedDiff{r}, nil
}

// Close ends the children that render.
func (d *RenderedDiff) Close() error { return d.renderer.pool.Close() }

// Rendered returns a unified diff, without the values of Secrets.
func (d *RenderedDiff) Rendered(ctx context.Context, folder string, from, to gitsource.Snapshot) (string, error) {
	var sets [2]manifests.Set
	for i, snapshot := range []gitsource.Snapshot{from, to} {
		app := &v1alpha1.Application{}
		app.Name, app.Spec.Path = "rendered", folder
		rendered, err := d.renderer.Render(ctx, snapshot, app, nil)
		if err != nil {
			return "", err
		}
		if sets[i], err = unlabelled(rendered.Set); err != nil {
			return "", err
		}
	}
	return manifests.Diff(sets[0], sets[1])
}

// unlabelled takes the Application's name out, which here is nobody's.
func unlabelled(set manifests.Set) (manifests.Set, error) {
	var objects []*unstructured.Unstructured
	for _, object := range set.Objects {
		without := object.DeepCopy() // a Set is shared with the memo
		unstructured.RemoveNestedField(without.Object, "metadata", "labels", manifests.LabelApplication)
		if len(without.GetLabels()) == 0 {
			without.SetLabels(nil)
		}
		objects = append(objects, without)
	}
	return manifests.NewSet(objects)
}
