package v1alpha1

// IgnoreRule leaves fields of objects to others. They are set when Slipway creates an object, and neither applied, owned nor
// healed once it is there.
type IgnoreRule struct {
	Target ObjectSelector `json:"target"`
	// Paths are JSON pointers into the object: "/spec/replicas". Items of lists are named by their position in Git.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:Pattern=`^(/[^/]+)+$`
	// +kubebuilder:validation:items:MaxLength=500
	Paths []string `json:"paths"`
}

// ObjectSelector selects objects by what is set of it.
type ObjectSelector struct {
	// Group of the kind; empty for any.
	// +optional
	Group string `json:"group,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Kind string `json:"kind"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// +optional
	Name string `json:"name,omitempty"`
}
