package wire

import (
	"fmt"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
	"github.com/slipway-cd/slipway/rollout/prom"
	"github.com/slipway-cd/slipway/rollout/web"
)

// servers are those that Rollouts name.
type servers struct{ web.Asker }

func (servers) Prometheus(source v1alpha1.PrometheusSource, secret map[string][]byte) (rollout.Meter, func(), error) {
	access, err := web.AccessOf(source.ServerAccess, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("prometheus: %w", err)
	}
	client, err := access.Client()
	if err != nil {
		return nil, nil, fmt.Errorf("prometheus: %w", err)
	}
	meter, err := prom.New(prom.Options{URL: source.Address, Transport: client.Transport()})
	if err != nil {
		return nil, nil, err
	}
	return meter, client.Close, nil
}
