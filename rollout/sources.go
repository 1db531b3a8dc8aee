package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler/expression"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// answerVariable is what an answer is called in the expression for its number.
const answerVariable = "body"

var errNoServers = errors.New("this agent asks no servers that Rollouts name")

// meterOf is the Prometheus that a metric is measured with. done ends its use, and keeps a Secret out of an error.
func (r *Reconciler) meterOf(ctx context.Context, rollout *v1alpha1.Rollout, check *v1alpha1.MetricCheck) (meter Meter, done func(error) error, err error) {
	switch {
	case check.Prometheus == nil && r.options.Meter == nil:
		return nil, nil, errors.New("the agent knows no Prometheus (start it with --prometheus URL)")
	case check.Prometheus == nil:
		return r.options.Meter, func(err error) error { return err }, nil
	case r.options.Servers == nil:
		return nil, nil, errNoServers
	}
	secret, err := r.secretOf(ctx, rollout, check.Prometheus.ServerAccess)
	if err != nil {
		return nil, nil, err
	}
	meter, end, err := r.options.Servers.Prometheus(*check.Prometheus, secret)
	if err != nil {
		return nil, nil, masked(err, secret)
	}
	return meter, func(err error) error {
		end()
		return masked(err, secret)
	}, nil
}

// masked is err without what a Secret holds.
func masked(err error, secret map[string][]byte) error {
	if err == nil || len(secret) == 0 {
		return err
	}
	var values []policy.Secret
	for _, value := range secret {
		values = append(values, policy.NewSecret(string(value)))
	}
	return errors.New(policy.NewMask(values).Clean(err.Error()))
}

// secretOf reads a Secret of the Rollout's namespace, and of no other. It is read when it is needed and not kept.
func (r *Reconciler) secretOf(ctx context.Context, rollout *v1alpha1.Rollout, access v1alpha1.ServerAccess) (map[string][]byte, error) {
	if access.SecretRef == nil {
		return nil, nil
	}
	var secret corev1.Secret
	err := r.direct.Get(ctx, client.ObjectKey{Namespace: rollout.Namespace, Name: access.SecretRef.Name}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("secret %s/%s is missing (create it in the Rollout's namespace)", rollout.Namespace, access.SecretRef.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s: %w", rollout.Namespace, access.SecretRef.Name, err)
	}
	return secret.Data, nil
}

// lookByHTTP asks a server for the number of one version or of both.
func (r *Reconciler) lookByHTTP(ctx context.Context, rollout *v1alpha1.Rollout, check *v1alpha1.MetricCheck, canary, stable variables) (look analysis.Look, err error) {
	if r.options.Servers == nil {
		return look, errNoServers
	}
	number, err := expression.CompileNumber(check.HTTP.Value, answerVariable)
	if err != nil {
		return look, err
	}
	secret, err := r.secretOf(ctx, rollout, check.HTTP.ServerAccess)
	if err != nil {
		return look, err
	}
	ask := func(of variables) ([]float64, error) {
		value, err := r.number(ctx, of.request(check.HTTP.HTTPRequest), secret, number)
		return []float64{value}, err
	}
	if look.Canary, err = ask(canary); err != nil || check.Range != nil {
		return look, err
	}
	look.Baseline, err = ask(stable)
	return look, err
}

func (r *Reconciler) number(ctx context.Context, request v1alpha1.HTTPRequest, secret map[string][]byte, number *expression.Number) (float64, error) {
	answer, err := r.options.Servers.Ask(ctx, request, secret)
	if err != nil {
		return 0, masked(err, secret)
	}
	var body any
	if json.Unmarshal(answer, &body) != nil { // err quotes it
		return 0, errors.New("the answer is no JSON")
	}
	value, err := number.Value(map[string]any{answerVariable: body})
	if err != nil {
		return 0, fmt.Errorf("the answer: %w", err)
	}
	return value, nil
}

// request fills in variables. In the URL their values are escaped.
func (v variables) request(of v1alpha1.HTTPRequest) v1alpha1.HTTPRequest {
	escaped := variables{}
	for name, value := range v {
		escaped[name] = url.QueryEscape(value)
	}
	of.URL, of.Body = escaped.fill(of.URL), v.fill(of.Body)
	return of
}
