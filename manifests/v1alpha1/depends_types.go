package v1alpha1

// Dependency is an Application of the same namespace that has to be ready before a new version of this one is applied.
type Dependency struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// ReadyExpr is a CEL condition over self (this Application) and dep (the other one) that takes the place of: dep is
	// Ready with its newest spec and, where both follow the same source, at this revision or a newer one.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	ReadyExpr string `json:"readyExpr,omitempty"`
}
