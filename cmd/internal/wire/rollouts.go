package wire

import (
	"context"
	"crypto/ed25519"
	"reflect"
	"slices"
	"strings"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/undo"
	"github.com/slipway-cd/slipway/reconciler/report"
	"github.com/slipway-cd/slipway/rollout"
)

// rolloutsEvery is how often the agent looks for something new of Rollouts to report.
const rolloutsEvery = 2 * time.Second

// reportRollouts tells the server how far the Rollouts have come, signed, from the cache, until ctx ends.
func reportRollouts(ctx context.Context, kube client.Client, cluster string, server *report.Client, key ed25519.PrivateKey, now func() time.Time) {
	var last []v1alpha1.RolloutState
	var sent time.Time
	tick := time.NewTicker(rolloutsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		states, err := rolloutStates(ctx, kube, now())
		if err != nil || reflect.DeepEqual(states, last) && time.Since(sent) < reportAnew {
			continue
		}
		signed, err := undo.SignRollouts(key, v1alpha1.RolloutReport{Cluster: cluster, At: now().UTC(), Rollouts: states})
		if err == nil {
			err = server.Rollouts(ctx, signed)
		}
		if err != nil {
			ctrl.LoggerFrom(ctx).V(1).Info("report of rollouts was not delivered", "cause", err.Error())
			continue
		}
		last, sent = states, time.Now()
	}
}

func rolloutStates(ctx context.Context, kube client.Client, now time.Time) ([]v1alpha1.RolloutState, error) {
	var list v1alpha1.RolloutList
	if err := kube.List(ctx, &list, client.HasLabels{manifests.LabelApplication}); err != nil {
		return nil, err
	}
	states := make([]v1alpha1.RolloutState, 0, len(list.Items))
	for i := range list.Items {
		states = append(states, rollout.StateOf(&list.Items[i], now))
	}
	slices.SortFunc(states, func(a, b v1alpha1.RolloutState) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return states, nil
}
