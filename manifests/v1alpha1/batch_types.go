package v1alpha1

// RollingBatch is done when this percentage of all pods is new, the pause is over and the metrics have passed.
type RollingBatch struct {
	// Percent of all pods that are new from here on, rounded up. Batches grow; after the last all pods become new.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Percent int32 `json:"percent"`
	// Pause waits once they are available, for a time or until approved.
	// +optional
	Pause *PauseStep `json:"pause,omitempty"`
	// Analysis is measured after the pause, and goes on when all metrics have passed.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Analysis []MetricCheck `json:"analysis,omitempty"`
}
