package v1alpha1

// HealthCheck judges the objects of one kind by CEL conditions, in the place of what is known about that kind otherwise.
// The conditions are over self and over its fields metadata, spec, status and data; inProgress is asked first, then
// failed, then current. An object for which none holds is in progress, as is one whose controller has not seen its newest
// generation. A condition that cannot be evaluated, because a field is missing say, decides nothing.
type HealthCheck struct {
	// +kubebuilder:validation:MinLength=1
	APIVersion string `json:"apiVersion"`
	// +kubebuilder:validation:MinLength=1
	Kind string `json:"kind"`
	// Current holds when the object is healthy.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Current string `json:"current"`
	// InProgress holds while the object is on its way.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	InProgress string `json:"inProgress,omitempty"`
	// Failed holds when it has failed for good: the Set fails at once, and is reverted.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Failed string `json:"failed,omitempty"`
}
