package install

import (
	_ "embed" // the dashboard and the alert rules
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
)

//go:embed dashboards/agent.json
var dashboard string

//go:embed dashboards/alerts.yaml
var alerts []byte

//go:embed dashboards/scrape.yaml
var scrape []byte

// Dashboards returns a ConfigMap with a Grafana dashboard, labelled for the sidecar that looks for such, and for the Prometheus
// Operator a PrometheusRule with alerts and a PodMonitor. Every metric that they name is one that an agent shows.
func Dashboards(namespace string) ([]*unstructured.Unstructured, error) {
	if err := fault("namespace", namespace, validation.IsDNS1123Label(namespace)...); err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	rules, err := parse(slices.Concat(alerts, []byte("---\n"), scrape))
	if err != nil {
		return nil, fmt.Errorf("install: dashboards: %w", err)
	}
	objects := append([]*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name":   "slipway-agent-dashboard",
			"labels": map[string]any{"app.kubernetes.io/name": AgentName, "grafana_dashboard": "1"},
		},
		"data": map[string]any{"slipway-agent.json": dashboard},
	}}}, rules...)
	for _, object := range objects {
		object.SetNamespace(namespace)
	}
	return objects, nil
}
