package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ChartSource is a Helm chart of a chart repository that Applications are rendered from. Its root is the chart: an
// Application has spec.path "." and its values in spec.helm.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=scs,categories=slipway
// +kubebuilder:printcolumn:name="Repository",type=string,JSONPath=`.spec.repository`
// +kubebuilder:printcolumn:name="Chart",type=string,JSONPath=`.spec.chart`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type ChartSource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ChartSourceSpec `json:"spec"`
	Status ArtifactStatus  `json:"status,omitempty"`
}

// ChartSourceSpec says where the chart is and which of its versions to follow.
//
// +kubebuilder:validation:XValidation:rule="!has(self.verify) || self.repository.startsWith('oci://')",message="verify needs a repository oci://...: signatures are kept by registries"
type ChartSourceSpec struct {
	// Repository that holds the chart: "oci://registry.example/charts", or "https://charts.example.com" with an index.yaml.
	// Repositories on loopback are read without TLS, no others.
	// +kubebuilder:validation:Pattern=`^(oci|https?)://[^@]+$`
	// +kubebuilder:validation:MaxLength=500
	Repository string `json:"repository"`
	// Chart is its name in the repository.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]+([._-][a-z0-9]+)*$`
	// +kubebuilder:validation:MaxLength=200
	Chart string `json:"chart"`
	// Version is a version or a range, of which the highest is followed: "1.2.3", "~1.2", ">= 1.0.0 < 2".
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	Version string `json:"version"`
	// Digest that the chart must have: of the manifest in a registry, of the archive elsewhere. Other content of the same
	// version is refused then; without it, it is a new revision.
	// +kubebuilder:validation:Pattern=`^sha256:[a-f0-9]{64}$`
	// +optional
	Digest string `json:"digest,omitempty"`
	// Interval between looks at the repository.
	// +kubebuilder:default="10m"
	Interval metav1.Duration `json:"interval,omitempty"`
	// SecretRef names a Secret of the same namespace: of type kubernetes.io/dockerconfigjson, or with the keys username and
	// password.
	// +optional
	SecretRef *LocalRef `json:"secretRef,omitempty"`
	// Provider gets a short-lived token for the registry where secretRef gives no login: gcp for Artifact Registry and
	// Container Registry, by the workload identity of the agent.
	// +kubebuilder:validation:Enum=generic;gcp
	// +kubebuilder:default=generic
	Provider string `json:"provider,omitempty"`
	// Verify asks for a signature in the registry. What has none is not followed.
	// +optional
	Verify *ArtifactVerification `json:"verify,omitempty"`
}

// GetConditions returns the conditions; fluxcd/pkg/runtime asks for it.
func (in *ChartSource) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions; fluxcd/pkg/runtime asks for it.
func (in *ChartSource) SetConditions(conditions []metav1.Condition) {
	in.Status.Conditions = conditions
}

// ArtifactStatus returns the status that all sources of this sort share.
func (in *ChartSource) ArtifactStatus() *ArtifactStatus { return &in.Status }

// ChartSourceList is a list of ChartSources.
//
// +kubebuilder:object:root=true
type ChartSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ChartSource `json:"items"`
}
