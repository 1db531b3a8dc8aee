package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GitSource is a branch of a Git repository that Applications are rendered from.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sgs,categories=slipway
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.url`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type GitSource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GitSourceSpec   `json:"spec"`
	Status GitSourceStatus `json:"status,omitempty"`
}

// GitSourceSpec says where the repository is and which branch to follow.
type GitSourceSpec struct {
	// URL of the repository: http or https, without credentials.
	// +kubebuilder:validation:Pattern=`^https?://[^@]+$`
	URL string `json:"url"`
	// Branch to follow.
	// +kubebuilder:default=main
	Branch string `json:"branch,omitempty"`
	// Interval between looks at the remote refs. Nudges make it sooner.
	// +kubebuilder:default="1m"
	Interval metav1.Duration `json:"interval,omitempty"`
	// SecretRef names a Secret of the same namespace with the keys username and password.
	// +optional
	SecretRef *LocalRef `json:"secretRef,omitempty"`
	// +optional
	Webhook *SourceWebhook `json:"webhook,omitempty"`
}

// LocalRef names an object of the same namespace.
type LocalRef struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// GitSourceStatus is what the agent last saw of the repository.
type GitSourceStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Revision is the newest commit seen: "refs/heads/main@sha1:...".
	Revision string `json:"revision,omitempty"`
	// FetchedAt is when Revision was first seen.
	// +optional
	FetchedAt  *metav1.Time       `json:"fetchedAt,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetConditions returns the conditions; fluxcd/pkg/runtime asks for it.
func (in *GitSource) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions; fluxcd/pkg/runtime asks for it.
func (in *GitSource) SetConditions(conditions []metav1.Condition) { in.Status.Conditions = conditions }

// GitSourceList is a list of GitSources.
//
// +kubebuilder:object:root=true
type GitSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GitSource `json:"items"`
}
