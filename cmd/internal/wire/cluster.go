package wire

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/expression"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// liveCluster adapts package apply to the reconciler's ports Cluster and Judge.
type liveCluster struct {
	namespace string // of the Applications
	applier   *apply.Applier
	watcher   *apply.Watcher
}

func (c *liveCluster) Track(app string, owned plan.Inventory) {
	c.watcher.Track(types.NamespacedName{Namespace: c.namespace, Name: app}, owned)
}

func (c *liveCluster) Observe(ctx context.Context, refs []manifests.Ref) plan.Observed {
	return c.applier.Observe(ctx, refs)
}

func (c *liveCluster) Apply(ctx context.Context, todo plan.Plan) (reconciler.Applied, error) {
	result, err := c.applier.Apply(ctx, todo, nil)
	applied := reconciler.Applied{Entries: result.Entries, Gone: result.Gone}
	for _, change := range result.Done {
		applied.Changes = append(applied.Changes, reconciler.Change{Ref: change.Ref, Verb: change.Verb, Drift: change.Drift})
	}
	return applied, err
}

func (c *liveCluster) Checks(app string, checks map[schema.GroupKind]expression.Health) {
	c.watcher.Checks(types.NamespacedName{Namespace: c.namespace, Name: app}, checks)
}

func (c *liveCluster) Health(ref manifests.Ref) reconciler.Health {
	health := c.watcher.Health(ref)
	states := map[apply.HealthState]reconciler.HealthState{
		apply.Progressing: reconciler.HealthProgressing,
		apply.Healthy:     reconciler.HealthHealthy,
		apply.Failed:      reconciler.HealthFailed,
	}
	return reconciler.Health{State: states[health.State], Message: health.Message, Early: health.Early}
}

func (c *liveCluster) Tail(ctx context.Context, job manifests.Ref, uid string) (string, error) {
	return c.applier.Tail(ctx, job, uid)
}

// asAccount makes requests under ctx those of a ServiceAccount.
func asAccount(ctx context.Context, account types.NamespacedName) context.Context {
	return apply.As(ctx, "system:serviceaccount:"+account.Namespace+":"+account.Name)
}

// explained is how many fields an explanation names.
const explained = 5

func (c *liveCluster) Explain(ctx context.Context, object *unstructured.Unstructured) string {
	diff, err := c.applier.DryRun(ctx, object)
	if err != nil {
		return "changed; what cannot be told: " + err.Error()
	}
	if diff.Create {
		return "it was deleted"
	}
	var fields []string
	for _, field := range diff.Fields {
		if len(fields) == explained {
			fields = append(fields, fmt.Sprintf("and %d more", len(diff.Fields)-explained))
			break
		}
		fields = append(fields, field.Drift())
	}
	if len(fields) == 0 {
		return "the record of who owns its fields was changed"
	}
	return strings.Join(fields, ", ")
}
