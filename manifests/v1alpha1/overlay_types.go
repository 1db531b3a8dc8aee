package v1alpha1

// Overlay changes what a path renders to, be it a kustomization, a folder or a chart, as a kustomization on top of it
// would: first components, then patches, prefix, labels, annotations and images. Variables are replaced after it.
type Overlay struct {
	// NamePrefix is put before the names of all objects, and what refers to them follows. Namespaces and
	// CustomResourceDefinitions keep theirs.
	// +optional
	NamePrefix string `json:"namePrefix,omitempty"`
	// CommonLabels are put on the metadata of all objects; selectors and pod templates stay as they are.
	// +optional
	CommonLabels map[string]string `json:"commonLabels,omitempty"`
	// CommonAnnotations are put on the metadata of all objects; pod templates stay as they are.
	// +optional
	CommonAnnotations map[string]string `json:"commonAnnotations,omitempty"`
	// Components are folders of kustomize components, from the root of the repository.
	// +kubebuilder:validation:MaxItems=50
	// +optional
	Components []string `json:"components,omitempty"`
	// Patches are applied in order.
	// +kubebuilder:validation:MaxItems=200
	// +optional
	Patches []Patch `json:"patches,omitempty"`
	// ImageOverrides change images by their names in the manifests.
	// +kubebuilder:validation:MaxItems=200
	// +optional
	ImageOverrides []ImageOverride `json:"imageOverrides,omitempty"`
}

// Patch changes objects.
type Patch struct {
	// Patch is YAML: a part of an object, merged strategically, or a list of JSON6902 operations, which needs a target.
	// +kubebuilder:validation:MinLength=1
	Patch string `json:"patch"`
	// Target selects the objects; default: the one that the patch names.
	// +optional
	Target *PatchTarget `json:"target,omitempty"`
}

// PatchTarget selects objects that match all of its fields. Group to Name are regular expressions for the whole value.
type PatchTarget struct {
	Group              string `json:"group,omitempty"`
	Version            string `json:"version,omitempty"`
	Kind               string `json:"kind,omitempty"`
	Namespace          string `json:"namespace,omitempty"`
	Name               string `json:"name,omitempty"`
	LabelSelector      string `json:"labelSelector,omitempty"`
	AnnotationSelector string `json:"annotationSelector,omitempty"`
}

// ImageOverride changes the name, the tag or the digest of an image.
//
// +kubebuilder:validation:XValidation:rule="has(self.newName) || has(self.newTag) || has(self.digest)",message="newName, newTag or digest is required"
type ImageOverride struct {
	// Name in the manifests, without tag and digest.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// +optional
	NewName string `json:"newName,omitempty"`
	// +optional
	NewTag string `json:"newTag,omitempty"`
	// Digest wins over NewTag.
	// +optional
	Digest string `json:"digest,omitempty"`
}

// IsZero reports whether o changes nothing.
func (o *Overlay) IsZero() bool {
	return o.NamePrefix == "" && len(o.CommonLabels)+len(o.CommonAnnotations)+len(o.Components)+len(o.Patches)+len(o.ImageOverrides) == 0
}
