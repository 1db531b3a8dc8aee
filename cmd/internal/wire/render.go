package wire

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/render"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler"
)

// renderer adapts the pool of render children to the reconciler's port.
type renderer struct {
	pool        *render.Renderer
	kubeVersion string
	// keepEncrypted shows files that SOPS encrypted as they are, for diffs.
	keepEncrypted bool
}

func newRenderer(memoDir, kubeVersion string, metrics prometheus.Registerer) (*renderer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("own executable: %w", err)
	}
	pool, err := render.New(render.Options{Command: []string{self, RenderChild}, MemoDir: memoDir, Metrics: metrics})
	if err != nil {
		return nil, err
	}
	return &renderer{pool: pool, kubeVersion: kubeVersion}, nil
}

// Render renders the path of app.
func (r *renderer) Render(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application, inputs []reconciler.Input) (reconciler.Rendered, error) {
	result, err := r.pool.Render(ctx, snapshot, render.Spec{
		Path:        app.Spec.Path,
		Application: app.Name,
		Namespace:   app.Spec.TargetNamespace,
		Helm:        app.Spec.Helm,
		KubeVersion: r.kubeVersion,
		Overlay:     app.Spec.Overlay,
		Decryption:  app.Spec.Decryption,

		KeepEncrypted: r.keepEncrypted,
		Substitute:    app.Spec.Substitute,
		Inputs:        revealed(inputs),
	})
	var mistake *render.Error
	if errors.As(err, &mistake) {
		return reconciler.Rendered{}, userMistake{err}
	}
	return reconciler.Rendered{Set: result.Set, Reads: result.Reads}, err
}

// revealed is what the render children get, and nobody else.
func revealed(inputs []reconciler.Input) []render.Input {
	var all []render.Input
	for _, one := range inputs {
		data := map[string][]byte{}
		for key, value := range one.Data {
			data[key] = []byte(value.Reveal())
		}
		all = append(all, render.Input{Kind: one.Kind, Name: one.Name, Data: data})
	}
	return all
}

// inputMetadata is what the cache keeps of the ConfigMaps and Secrets beside Applications: names and versions.
func inputMetadata(object any) (any, error) {
	if seen, ok := object.(*metav1.PartialObjectMetadata); ok {
		seen.Annotations, seen.Labels, seen.ManagedFields = nil, nil, nil
	}
	return object, nil
}

// userMistake marks an error that only another commit can mend.
type userMistake struct{ error }

// UserMistake reports true.
func (userMistake) UserMistake() bool { return true }

// Unwrap returns the error.
func (m userMistake) Unwrap() error { return m.error }
