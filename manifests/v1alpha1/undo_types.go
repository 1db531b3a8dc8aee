package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// UndoWindow says which versions come back without steps and analysis, as they were judged before and ran until lately. The
// new pods are still all available before they get traffic, and are judged by their health.
type UndoWindow struct {
	// Revisions is how many of the last stable versions count.
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	// +optional
	Revisions int32 `json:"revisions,omitempty"`
	// Within is how long ago a version may have stopped being stable.
	// +kubebuilder:default="24h"
	// +optional
	Within metav1.Duration `json:"within,omitempty"`
}

// PastBundle is a Bundle that was stable, or has failed.
type PastBundle struct {
	Bundle BundleRef `json:"bundle"`
	// Until is when it stopped being stable, or failed.
	Until metav1.Time `json:"until"`
	// Failed is true once it has failed. It does not come back without steps and analysis, also when it was stable before or
	// has passed since.
	Failed bool `json:"failed,omitempty"`
}
