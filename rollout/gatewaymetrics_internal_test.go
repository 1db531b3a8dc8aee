package rollout

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func TestGatewayMetrics(t *testing.T) {
	rollout := &v1alpha1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Spec: v1alpha1.RolloutSpec{Services: []v1alpha1.LocalRef{{Name: "web"}}}}
	canary, stable := queriesOf(rollout, time.Second)
	for gateway := range knownGateways {
		errors := &v1alpha1.MetricCheck{Name: "errors", Errors: &v1alpha1.ErrorsCheck{Gateway: gateway}}
		latency := &v1alpha1.MetricCheck{Name: "latency", Latency: &v1alpha1.LatencyCheck{Gateway: gateway}}
		for _, check := range []*v1alpha1.MetricCheck{errors, latency} {
			if err := checkQueries(asked(check)); err != nil {
				t.Errorf("%s: %s: %v", gateway, check.Name, err)
			}
			if !asksBy(asked(check), "service") {
				t.Errorf("%s: %s does not ask by {{service}}: versions could not be told apart", gateway, check.Name)
			}
		}
		if errors.Errors.Total != "" || latency.Latency.Buckets != "" {
			t.Errorf("%s: the spec was changed", gateway)
		}
		queries, _ := queriesIn(asked(errors))
		if of, by := canary.fill(queries[0]), stable.fill(queries[0]); !strings.Contains(of, "web-canary") || !strings.Contains(by, "web-stable") {
			t.Errorf("%s: the canary is asked for by %s, stable by %s", gateway, of, by)
		}
	}
}
