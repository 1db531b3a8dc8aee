package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Kinds that an Application can be rendered from.
const (
	KindGitSource   = "GitSource"
	KindOCISource   = "OCISource"
	KindChartSource = "ChartSource"
)

// SourceRef names a source of the same namespace.
type SourceRef struct {
	// Kind of the source. What fails and came from Git is reverted there; a registry cannot be reverted, so an Application
	// of another kind keeps its last healthy version and waits for a person.
	// +kubebuilder:validation:Enum=GitSource;OCISource;ChartSource
	// +kubebuilder:default=GitSource
	Kind string `json:"kind,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// IsArtifact reports whether the source is a registry or chart repository, not Git.
func (r SourceRef) IsArtifact() bool { return r.Kind == KindOCISource || r.Kind == KindChartSource }

// OCISource is an OCI artifact in a registry that Applications are rendered from: a tar archive as Flux, oras or an image
// builder push it. An Application's spec.path leads into the archive.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sos,categories=slipway
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.url`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type OCISource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   OCISourceSpec  `json:"spec"`
	Status ArtifactStatus `json:"status,omitempty"`
}

// OCISourceSpec says where the artifact is and which of its versions to follow.
type OCISourceSpec struct {
	// URL of the repository, "oci://registry.example/team/shop". Registries on loopback are read without TLS, no others.
	// +kubebuilder:validation:Pattern=`^oci://[^@]+$`
	// +kubebuilder:validation:MaxLength=500
	URL string `json:"url"`
	// Ref says which version to follow.
	Ref OCIRef `json:"ref"`
	// Interval between looks at the registry.
	// +kubebuilder:default="5m"
	Interval metav1.Duration `json:"interval,omitempty"`
	// SecretRef names a Secret of the same namespace, of type kubernetes.io/dockerconfigjson.
	// +optional
	SecretRef *LocalRef `json:"secretRef,omitempty"`
	// Provider gets a short-lived token for the registry where secretRef gives no login: gcp for Artifact Registry and
	// Container Registry, by the workload identity of the agent.
	// +kubebuilder:validation:Enum=generic;gcp
	// +kubebuilder:default=generic
	Provider string `json:"provider,omitempty"`
	// Verify asks for a signature. What has none is not followed.
	// +optional
	Verify *ArtifactVerification `json:"verify,omitempty"`
}

// OCIRef is a tag, a range of versions, or a digest.
//
// +kubebuilder:validation:XValidation:rule="[has(self.tag), has(self.semver), has(self.digest)].filter(x, x).size() == 1",message="exactly one of tag, semver and digest"
type OCIRef struct {
	// Tag to follow wherever it moves.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`
	// +optional
	Tag string `json:"tag,omitempty"`
	// SemVer is a range; of the tags that are versions in it the highest is followed: "~1.2", ">= 1.0.0 < 2".
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	// +optional
	SemVer string `json:"semver,omitempty"`
	// Digest that never moves.
	// +kubebuilder:validation:Pattern=`^sha256:[a-f0-9]{64}$`
	// +optional
	Digest string `json:"digest,omitempty"`
}

// ArtifactVerification is what an artifact has to show before it is followed.
type ArtifactVerification struct {
	// Keys of which one must have signed the artifact, as `cosign sign --key` does it.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	Keys []ImageKey `json:"keys"`
}

// ArtifactStatus is what the agent last saw of a registry or chart repository.
type ArtifactStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Revision is what is followed now: "1.2.3@sha256:...", the tag or version that was chosen and its digest.
	Revision string `json:"revision,omitempty"`
	// FetchedAt is when Revision was first seen.
	// +optional
	FetchedAt  *metav1.Time       `json:"fetchedAt,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetConditions returns the conditions; fluxcd/pkg/runtime asks for it.
func (in *OCISource) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions; fluxcd/pkg/runtime asks for it.
func (in *OCISource) SetConditions(conditions []metav1.Condition) { in.Status.Conditions = conditions }

// ArtifactStatus returns the status that all sources of this sort share.
func (in *OCISource) ArtifactStatus() *ArtifactStatus { return &in.Status }

// OCISourceList is a list of OCISources.
//
// +kubebuilder:object:root=true
type OCISourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []OCISource `json:"items"`
}
