package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// CheckSource says who is asked for the numbers of a metric, where that is not the agent's Prometheus.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.prometheus) && has(self.http))",message="prometheus and http exclude each other"
type CheckSource struct {
	// Prometheus is another server that the queries are asked of.
	// +optional
	Prometheus *PrometheusSource `json:"prometheus,omitempty"`
	// HTTP is asked for the number of range or relative instead of a query.
	// +optional
	HTTP *HTTPSource `json:"http,omitempty"`
}

// PrometheusSource is a Prometheus, or what speaks its API.
type PrometheusSource struct {
	// Address is the http or https URL below which its API is. No credentials belong into it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Address      string `json:"address"`
	ServerAccess `json:",inline"`
}

// HTTPSource is asked for one number. Everything but an answer with a status of 2xx that has the number is no answer: an
// error, another status, a redirect to another server, more than 1 MiB, no JSON, a field that is missing.
type HTTPSource struct {
	HTTPRequest `json:",inline"`
	// Value is a CEL expression for the number, over the variable body, which holds the answer's JSON:
	// "body.data.result[0].value", "double(body.rate) * 100.0".
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value"`
}

// HTTPRequest is what a server is asked. The variables of queries stand for the same in URL and body; in the URL they are
// escaped.
type HTTPRequest struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`
	// +kubebuilder:validation:Enum=GET;POST
	// +kubebuilder:default=GET
	Method string `json:"method,omitempty"`
	// Body of a POST.
	// +kubebuilder:validation:MaxLength=65536
	// +optional
	Body string `json:"body,omitempty"`
	// Timeout of one request, at most 10 s.
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('10s')",message="more than 0s, at most 10s"
	Timeout      metav1.Duration `json:"timeout,omitempty"`
	ServerAccess `json:",inline"`
}

// ServerAccess is how a server lets us in.
type ServerAccess struct {
	// SecretRef is a Secret of the Rollout's namespace, which is read each time: token (a bearer's), or username with
	// password; ca.crt, which is trusted instead of the system's authorities; tls.crt with tls.key, a client's certificate;
	// key, by which X-Signature (sha256=HEX, an HMAC of the body) is made.
	// +optional
	SecretRef *LocalRef `json:"secretRef,omitempty"`
	// Headers are sent with each request.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +optional
	Headers []RequestHeader `json:"headers,omitempty"`
}

// RequestHeader has a value, or takes it from the Secret.
//
// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.secretKey)",message="give value or secretKey"
type RequestHeader struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]{1,256}$`
	Name string `json:"name"`
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Value string `json:"value,omitempty"`
	// SecretKey is the key of secretRef whose content is the value.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	SecretKey string `json:"secretKey,omitempty"`
}

// JobCheck runs a Job in the Rollout's namespace for each look, and deletes it when the look is on record. One that
// completes passes the look, and one that fails because its program ended with an error fails it. What else is in the way
// is no answer: pods that cannot be created, a deadline, a node that goes, memory that runs out.
type JobCheck struct {
	// Template of the Job, as a CronJob has it (batch/v1 JobTemplateSpec). Without a restartPolicy it is Never, and without
	// a backoffLimit 0. Its pods must not have the labels by which the workload or a Service of the Rollout finds pods.
	// All containers get SLIPWAY_ROLLOUT, SLIPWAY_NAMESPACE, SLIPWAY_METRIC, SLIPWAY_BUNDLE (digest), SLIPWAY_REVISION (the
	// commit), SLIPWAY_CANARY and SLIPWAY_STABLE (the workloads), SLIPWAY_CANARY_SERVICES and SLIPWAY_STABLE_SERVICES (the
	// names of Services that send to one version alone, in the order of spec.services, with spaces between; empty where there
	// are none).
	// +kubebuilder:pruning:PreserveUnknownFields
	Template runtime.RawExtension `json:"template"`
	// Timeout from creation to the end, at most 24h.
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('24h')",message="more than 0s, at most 24h"
	Timeout metav1.Duration `json:"timeout,omitempty"`
}
