package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ApplicationSet makes Applications of one template: one for each directory of a source that matches a pattern, one for each
// entry of a list, and one for each open pull request. They come, change and go with these, in the namespace of the set.
// Like an Application, a set that leaves Git stays in the cluster unless it is annotated slipway.dev/prune: enabled.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sas,categories=slipway
// +kubebuilder:printcolumn:name="Applications",type=integer,JSONPath=`.status.applications`
// +kubebuilder:printcolumn:name="Healthy",type=integer,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name becomes the value of a label, so it has at most 63 characters"
type ApplicationSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ApplicationSetSpec   `json:"spec"`
	Status ApplicationSetStatus `json:"status,omitempty"`
}

// ApplicationSetSpec says for what there are Applications, and how they look.
//
// +kubebuilder:validation:XValidation:rule="has(self.directories) || has(self.list) || has(self.pullRequests)",message="nothing to make Applications for: give directories, list or pullRequests"
// +kubebuilder:validation:XValidation:rule="!has(self.directories) && !has(self.pullRequests) || !self.template.spec.sourceRef.name.contains('{{')",message="template.spec.sourceRef.name has no variables where directories or pull requests are looked for in that source"
// +kubebuilder:validation:XValidation:rule="!has(self.pullRequests) || self.template.spec.sourceRef.kind == 'GitSource'",message="pullRequests needs a GitSource in template.spec.sourceRef"
// +kubebuilder:validation:XValidation:rule="!has(self.pullRequests) || has(self.template.spec.serviceAccountName) && self.template.spec.serviceAccountName != \"\" && !self.template.spec.serviceAccountName.contains('{{')",message="pullRequests needs template.spec.serviceAccountName, without variables: nobody has approved what a pull request proposes, so it gets the rights of that ServiceAccount and not those of the agent"
// +kubebuilder:validation:XValidation:rule="!has(self.pullRequests) || !has(self.preserve) || !self.preserve",message="preserve would keep the previews of pullRequests for ever; leave it out, or make a set of their own for them"
type ApplicationSetSpec struct {
	// Directories of the source that template.spec.sourceRef names.
	// +optional
	Directories *DirectoryGenerator `json:"directories,omitempty"`
	// List has an Application for each entry.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	List []ApplicationSetEntry `json:"list,omitempty"`
	// PullRequests has an Application for each open pull request of the source that template.spec.sourceRef names.
	// +optional
	PullRequests *PullRequestGenerator `json:"pullRequests,omitempty"`
	// Template of the Applications. In its strings {{path}} (of a directory), {{name}} and {{values.X}} are replaced; a
	// variable that there is not is an error. "{{{{" stands for "{{".
	Template ApplicationTemplate `json:"template"`
	// Preserve leaves Applications in place, as nobody's, when their entry or the set goes.
	// +optional
	Preserve bool `json:"preserve,omitempty"`
}

// DirectoryGenerator has an Application for each directory that matches.
type DirectoryGenerator struct {
	// Pattern is a path from the root of the source. In each element of it, * stands for any characters, ? for one and
	// [a-z] for one of a range; hidden directories match only where the element begins with a dot. {{name}} is what the elements with such a sign matched, joined by "-", and {{values.1}},
	// {{values.2}} and so on are these elements one by one: of apps/*/production, apps/shop/production has the name shop.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1000
	Pattern string `json:"pattern"`
	// Exclude leaves out directories that match one of these patterns, and all below them.
	// +kubebuilder:validation:MaxItems=100
	// +optional
	Exclude []string `json:"exclude,omitempty"`
}

// ApplicationSetEntry is one entry of a list.
type ApplicationSetEntry struct {
	// Name is {{name}}.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Values are {{values.X}}. An entry without a value that the template uses is an error.
	// +optional
	Values map[string]string `json:"values,omitempty"`
}

// ApplicationTemplate is an Application with variables in its strings.
type ApplicationTemplate struct {
	// +optional
	Metadata ApplicationTemplateMetadata `json:"metadata,omitempty"`
	Spec     ApplicationSpec             `json:"spec"`
}

// ApplicationTemplateMetadata is what the Applications are called and how they are marked.
type ApplicationTemplateMetadata struct {
	// Name of the Applications; default {{name}}.
	// +optional
	Name string `json:"name,omitempty"`
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ApplicationSetStatus is what became of the entries.
type ApplicationSetStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Applications that there shall be.
	Applications int `json:"applications,omitempty"`
	// Ready of those that there are.
	Ready int `json:"ready,omitempty"`
	// Removing counts Applications without an entry that are not gone yet, also those that are held.
	Removing int `json:"removing,omitempty"`
	// Failed entries.
	Failed int `json:"failed,omitempty"`
	// Failures has the first ten of them.
	// +optional
	Failures []ApplicationSetFailure `json:"failures,omitempty"`
	// ApprovedPrune is the approval that is being carried out.
	ApprovedPrune string `json:"approvedPrune,omitempty"`
	// LastHandledReconcileAt is the value of the reconcile annotation last acted on.
	LastHandledReconcileAt string             `json:"lastHandledReconcileAt,omitempty"`
	Conditions             []metav1.Condition `json:"conditions,omitempty"`
}

// ApplicationSetFailure is one entry that its Application could not be made or changed for.
type ApplicationSetFailure struct {
	// Origin is "directory apps/shop/production", "list entry shop" or "pull request 12".
	Origin string `json:"origin"`
	// Name of the Application, where it is known.
	Name    string `json:"name,omitempty"`
	Message string `json:"message"`
}

// ReasonEntriesFailed says that entries of an ApplicationSet have no Application, or not as the template has it now.
const ReasonEntriesFailed = "EntriesFailed"

// GetConditions returns the conditions; fluxcd/pkg/runtime asks for it.
func (in *ApplicationSet) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions; fluxcd/pkg/runtime asks for it.
func (in *ApplicationSet) SetConditions(conditions []metav1.Condition) {
	in.Status.Conditions = conditions
}

// ApplicationSetList is a list of ApplicationSets.
//
// +kubebuilder:object:root=true
type ApplicationSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApplicationSet `json:"items"`
}
