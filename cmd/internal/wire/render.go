package wire

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/render"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// renderer adapts the pool of render children to the reconciler's port.
type renderer struct {
	pool        *render.Renderer
	kubeVersion string
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
func (r *renderer) Render(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application) (manifests.Set, error) {
	result, err := r.pool.Render(ctx, snapshot, render.Spec{
		Path:        app.Spec.Path,
		Application: app.Name,
		Namespace:   app.Spec.TargetNamespace,
		Helm:        app.Spec.Helm,
		KubeVersion: r.kubeVersion,
	})
	var mistake *render.Error
	if errors.As(err, &mistake) {
		return manifests.Set{}, userMistake{err}
	}
	return result.Set, err
}

// userMistake marks an error that only another commit can mend.
type userMistake struct{ error }

// UserMistake reports true.
func (userMistake) UserMistake() bool { return true }

// Unwrap returns the error.
func (m userMistake) Unwrap() error { return m.error }
