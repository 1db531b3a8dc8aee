package v1alpha1

import "slices"

// InputKind is a kind of object that an Application may take values from.
type InputKind string

// The kinds of inputs.
const (
	InputConfigMap InputKind = "ConfigMap"
	InputSecret    InputKind = "Secret"
)

// SubstituteSpec replaces ${NAME} in the rendered objects, after everything else and before they are applied.
//
// Known are ${NAME}, and ${NAME:=default} and ${NAME:-default}, which give the default where NAME is not defined or
// empty; $${NAME} stays as ${NAME}. Names are those of a shell: letters, digits and "_". A value is put in as it is: it
// is not searched for variables, and whatever is in it, it stays within the field that names it. A field that consists
// of variables alone becomes a number or a boolean if its value reads like one, so that replicas: ${REPLICAS} works; not
// so where Kubernetes wants text (metadata, data of ConfigMaps and Secrets, args, env values, selectors), nor where the
// value has quotes around it. Objects with the annotation slipway.dev/substitute: disabled are left as they are.
type SubstituteSpec struct {
	// Variables by name. They win over what From brings.
	// +optional
	Variables map[string]string `json:"variables,omitempty"`
	// From names ConfigMaps and Secrets in the Application's namespace, of which each key is a variable; later ones win.
	// Keys that are no names of variables are left out. When one of them changes, the Application is rendered again.
	// +kubebuilder:validation:MaxItems=50
	// +optional
	From []InputReference `json:"from,omitempty"`
	// Strict makes a variable that is not defined, and has no default, an error. Else it is empty.
	// +optional
	Strict bool `json:"strict,omitempty"`
}

// InputReference names a ConfigMap or Secret in the Application's namespace.
type InputReference struct {
	// +kubebuilder:validation:Enum=ConfigMap;Secret
	Kind InputKind `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Optional lets the object be missing.
	// +optional
	Optional bool `json:"optional,omitempty"`
}

// Inputs returns the ConfigMaps and Secrets that s names, each once.
func (s *ApplicationSpec) Inputs() []InputReference {
	var all []InputReference
	add := func(kind InputKind, name string) {
		one := InputReference{Kind: kind, Name: name}
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	if s.Substitute != nil {
		for _, from := range s.Substitute.From {
			add(from.Kind, from.Name)
		}
	}
	if s.Decryption != nil {
		add(InputSecret, s.Decryption.SecretRef.Name)
	}
	if s.Helm != nil {
		for _, from := range s.Helm.ValuesFrom {
			add(from.Kind, from.Name)
		}
	}
	return all
}
