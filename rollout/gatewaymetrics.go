package rollout

import "github.com/slipway-cd/slipway/manifests/v1alpha1"

// gatewayMetrics are queries for what a gateway says of the Services of one version.
type gatewayMetrics struct{ total, bad, buckets string }

// Traefik names what it sends to NAMESPACE-SERVICE-http-PORT@PROVIDER, for GRPCRoutes NAMESPACE-SERVICE-PORT-grpc@PROVIDER.
const traefikServices = `{service=~"{{namespace}}-{{service}}-(http-[0-9]+|[0-9]+-grpc)@.+"`

// knownGateways are the gateways whose metrics need no query of the user's. The counter of bad requests begins to exist with
// the first of them, so that it is zero until then where there are requests at all.
var knownGateways = map[v1alpha1.Gateway]gatewayMetrics{
	v1alpha1.GatewayTraefik: {
		total: `sum by (service) (traefik_service_requests_total` + traefikServices + `})`,
		bad: `sum by (service) (traefik_service_requests_total` + traefikServices + `,code=~"5.."})` +
			` or 0 * sum by (service) (traefik_service_requests_total` + traefikServices + `})`,
		buckets: `sum by (service, le) (traefik_service_request_duration_seconds_bucket` + traefikServices + `})`,
	},
}

// asked is a metric with the queries that it stands for.
func asked(check *v1alpha1.MetricCheck) *v1alpha1.MetricCheck {
	switch {
	case check.Errors != nil && check.Errors.Gateway != "":
		check = check.DeepCopy()
		known := knownGateways[check.Errors.Gateway]
		check.Errors.Total, check.Errors.Bad = known.total, known.bad
	case check.Latency != nil && check.Latency.Gateway != "":
		check = check.DeepCopy()
		check.Latency.Buckets = knownGateways[check.Latency.Gateway].buckets
	}
	return check
}
