package v1alpha1

// ValuesReference takes values for a chart from a ConfigMap or Secret in the Application's namespace.
type ValuesReference struct {
	// +kubebuilder:validation:Enum=ConfigMap;Secret
	Kind InputKind `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Key whose content is a YAML mapping of values, or with targetPath one value; default: values.yaml.
	// +optional
	Key string `json:"key,omitempty"`
	// TargetPath is where the content goes as one value, "database.password" say or "hosts[0]". What reads like a
	// number or a boolean becomes one, unless it has quotes around it.
	// +kubebuilder:validation:MaxLength=250
	// +kubebuilder:validation:Pattern=`^[^=,{}\s]+$`
	// +optional
	TargetPath string `json:"targetPath,omitempty"`
	// Optional lets the object or its key be missing.
	// +optional
	Optional bool `json:"optional,omitempty"`
}
