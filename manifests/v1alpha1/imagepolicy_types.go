package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DefaultImagePolicy is the name of the ImagePolicy that may say what happens to images that no policy covers.
const DefaultImagePolicy = "default"

// ImagePolicy says what images have to show before the agent applies what uses them. It counts in the namespace of the
// agent. An image that several policies cover has to meet each of them. Where there is no ImagePolicy at all, every image
// may be used. An Application with an image that is refused is Stalled; what runs of it keeps running.
//
// A policy in the same commit as what it covers may come too late for it: put it into an earlier commit, or give it an
// earlier wave.
//
// Images are covered by their names. Another name for the same registry, an address say, is another image: only a
// default that refuses makes policies complete.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=sip,categories=slipway
// +kubebuilder:printcolumn:name="Images",type=string,JSONPath=`.spec.images`
// +kubebuilder:printcolumn:name="Uncovered",type=string,JSONPath=`.spec.uncovered`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default' || !has(self.spec.uncovered)",message="only the ImagePolicy 'default' says what happens to images that no policy covers"
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default' || has(self.spec.images)",message="spec.images is required: without it the policy covers nothing"
type ImagePolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ImagePolicySpec `json:"spec"`
}

// ImagePolicySpec says which images are covered and what is asked of them.
//
// +kubebuilder:validation:XValidation:rule="!has(self.images) || has(self.keys) != (has(self.allowUnsigned) && self.allowUnsigned)",message="either keys that images are signed with, or allowUnsigned: true"
// +kubebuilder:validation:XValidation:rule="!has(self.requireProvenance) || has(self.keys)",message="requireProvenance needs keys: provenance counts when it is signed"
type ImagePolicySpec struct {
	// Images are patterns of repositories with their registry: "registry.example.com/shop/*" covers what is directly
	// below shop, "registry.example.com/**" everything of that registry. Images of Docker Hub begin with docker.io/.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9._:/*?-]+$`
	// +optional
	Images []string `json:"images,omitempty"`
	// Keys of which one must have signed the image, and its provenance where that is required.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	// +optional
	Keys []ImageKey `json:"keys,omitempty"`
	// AllowUnsigned lets the covered images be used without a signature. They count as covered.
	// +optional
	AllowUnsigned bool `json:"allowUnsigned,omitempty"`
	// RequireProvenance asks for SLSA provenance (v1) by one of the keys.
	// +optional
	RequireProvenance *ImageProvenance `json:"requireProvenance,omitempty"`
	// Uncovered says what happens to images that no policy covers. It is for the ImagePolicy called "default" alone;
	// where that is missing, or says nothing, they may be used.
	// +kubebuilder:validation:Enum=Allow;Deny
	// +optional
	Uncovered string `json:"uncovered,omitempty"`
}

// UncoveredDeny is the Uncovered that refuses.
const UncoveredDeny = "Deny"

// ImageKey is a public key.
type ImageKey struct {
	// Name for messages.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// PEM is the public key as `cosign generate-key-pair` writes it into cosign.pub.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=10000
	PEM string `json:"pem"`
}

// ImageProvenance limits what an image may have been built from, and where.
type ImageProvenance struct {
	// Sources are patterns of repository URLs, "https://git.example.com/shop/*"; none leaves the source open.
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9._~:/@*?%+-]+$`
	// +optional
	Sources []string `json:"sources,omitempty"`
	// Builders are patterns of builder ids, which name the isolation: "https://slipway.dev/builder/runc-*"; none
	// leaves it open.
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9._~:/@*?%+-]+$`
	// +optional
	Builders []string `json:"builders,omitempty"`
}

// ImagePolicyList is a list of ImagePolicies.
//
// +kubebuilder:object:root=true
type ImagePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ImagePolicy `json:"items"`
}
