package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HookRun is what became of one hook of a Set. Hooks run once for a Set, so this outlives the Job.
type HookRun struct {
	SetDigest string `json:"setDigest"`
	// Hook is when it runs: pre-apply, post-apply or on-failure.
	Hook string `json:"hook"`
	// Namespace and Name of the Job.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// +kubebuilder:validation:Enum=Running;Succeeded;Failed
	Outcome string `json:"outcome"`
	// Message says why it failed, with the end of its log. Values of Secrets that the Job uses are masked.
	// +optional
	Message string `json:"message,omitempty"`
	// At is when it was started.
	At metav1.Time `json:"at"`
}

// Outcomes of a HookRun.
const (
	HookRunning   = "Running"
	HookSucceeded = "Succeeded"
	HookFailed    = "Failed"
)
