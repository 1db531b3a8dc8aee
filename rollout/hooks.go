package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// webhooksOf are those of the strategy that is given.
func webhooksOf(spec v1alpha1.Strategy) []v1alpha1.RolloutWebhook {
	switch {
	case spec.Canary != nil:
		return spec.Canary.Webhooks
	case spec.BlueGreen != nil:
		return spec.BlueGreen.Webhooks
	case spec.Rolling != nil:
		return spec.Rolling.Webhooks
	}
	return nil
}

// hooksOf are the webhooks that have a say. Who is only told has none.
func hooksOf(spec []v1alpha1.RolloutWebhook) (hooks []analysis.Hook) {
	kinds := map[v1alpha1.HookType]analysis.HookKind{
		v1alpha1.HookConfirm: analysis.Confirm, v1alpha1.HookLoadTest: analysis.Load, v1alpha1.HookGate: analysis.Gate,
	}
	for _, hook := range spec {
		if kind, is := kinds[hook.Type]; is {
			content, _ := json.Marshal(hook) // it came as JSON
			hooks = append(hooks, analysis.Hook{
				Name: hook.Name, Kind: kind, Interval: hook.Interval.Duration, Reverts: hook.Reverts, Asks: manifests.DigestOf(content).Short(),
			})
		}
	}
	return hooks
}

// checkWebhooks refuses those that would not be called.
func checkWebhooks(rollout *v1alpha1.Rollout) error {
	spec, names := rollout.Spec.Strategy, map[string]bool{}
	for _, hook := range webhooksOf(spec) {
		switch {
		case spec.Rolling != nil && !inBatches(spec) && !byOrdinal(rollout) && hook.Type != v1alpha1.HookEvent:
			return fmt.Errorf("webhook %q: rolling without batches has no steps (give batches; type Event is called without)", hook.Name)
		case names[hook.Name]:
			return fmt.Errorf("webhook %q: there are two of that name", hook.Name)
		}
		names[hook.Name] = true
	}
	return nil
}

// call asks webhooks, all at once.
func (r *Reconciler) call(ctx context.Context, rollout *v1alpha1.Rollout, state analysis.State, names []string) map[string]analysis.Answer {
	ctx, cancel := context.WithTimeoutCause(ctx, maxMeasuring, fmt.Errorf("no answer within %s", maxMeasuring))
	defer cancel()
	hooks, answers := map[string]v1alpha1.RolloutWebhook{}, map[string]analysis.Answer{}
	for _, hook := range webhooksOf(rollout.Spec.Strategy) {
		hooks[hook.Name] = hook
	}
	var lock sync.Mutex
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			answer := analysis.Answer{Yes: true}
			if err := r.post(ctx, rollout, hooks[name], r.callOf(rollout, state, hooks[name])); err != nil {
				answer = analysis.Answer{Said: err.Error()}
			}
			lock.Lock()
			defer lock.Unlock()
			answers[name] = answer
		})
	}
	all.Wait()
	return answers
}

// callOf is what a webhook is sent about a version on its way.
func (r *Reconciler) callOf(rollout *v1alpha1.Rollout, state analysis.State, hook v1alpha1.RolloutWebhook) v1alpha1.RolloutCall {
	return v1alpha1.RolloutCall{
		Webhook: hook.Name, Type: hook.Type, Metadata: hook.Metadata, At: r.options.Now().UTC(),
		Application: rollout.Labels[manifests.LabelApplication], Namespace: rollout.Namespace, Rollout: rollout.Name,
		Phase: state.Phase, Bundle: state.Target.Digest, Revision: state.Target.Revision,
		Step: int32(state.Course.Step), Weight: int32(state.Course.Weight),
	}
}

// post sends a call. Everything but an answer of 2xx is an error, which shows nothing of a Secret.
func (r *Reconciler) post(ctx context.Context, rollout *v1alpha1.Rollout, hook v1alpha1.RolloutWebhook, call v1alpha1.RolloutCall) error {
	if r.options.Servers == nil {
		return errNoServers
	}
	if hook.URL == "" {
		return errors.New("there is no such webhook any more")
	}
	secret, err := r.secretOf(ctx, rollout, hook.ServerAccess)
	if err != nil {
		return err
	}
	content, err := json.Marshal(call)
	if err != nil {
		return err
	}
	_, err = r.options.Servers.Ask(ctx, v1alpha1.HTTPRequest{
		URL: hook.URL, Method: "POST", Body: string(content), Timeout: hook.Timeout, ServerAccess: hook.ServerAccess,
	}, secret)
	return masked(err, secret)
}
