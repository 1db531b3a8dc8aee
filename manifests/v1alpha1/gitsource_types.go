package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GitSource is a Git repository, and where in it, that Applications are rendered from.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sgs,categories=slipway
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.url`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type GitSource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GitSourceSpec   `json:"spec"`
	Status GitSourceStatus `json:"status,omitempty"`
}

// GitSourceSpec says where the repository is and what of it to follow: a branch, a tag, the newest
// tag of a range of versions, or one commit. Where nothing is said, the branch main is followed.
// Reverts are pushed to a branch: where none is followed, a failed version waits for a person.
//
// +kubebuilder:validation:XValidation:rule="[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].filter(given, given).size() <= 1",message="branch, tag, semver and commit exclude each other; keep one of them"
// +kubebuilder:validation:XValidation:rule="!has(self.verify) || self.verify.mode == 'Head' || has(self.tag) || has(self.semver)",message="verify.mode Tag and TagAndHead need a tag or a semver range to follow"
type GitSourceSpec struct {
	// URL of the repository, without credentials: https://HOST/PATH, http://HOST/PATH or ssh://USER@HOST/PATH.
	// +kubebuilder:validation:Pattern=`^(https?://[^@]+|ssh://[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9\[][A-Za-z0-9.:\]_-]*/[^@]+)$`
	URL string `json:"url"`
	// Branch to follow; main if nothing else is given.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Branch string `json:"branch,omitempty"`
	// Tag to stand at. It is looked at again: somebody may move it.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Tag string `json:"tag,omitempty"`
	// Semver is a range of versions, such as ">=1.2.0 <2.0.0" or "~1.4". The tag of the highest version in
	// it is followed; pre-releases count only where the range names one ("~1.4-0").
	// +kubebuilder:validation:MinLength=1
	// +optional
	Semver string `json:"semver,omitempty"`
	// Commit to stand at, in full.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{40}$`
	// +optional
	Commit string `json:"commit,omitempty"`
	// Interval between looks at the remote refs. Nudges make it sooner.
	// +kubebuilder:default="1m"
	Interval metav1.Duration `json:"interval,omitempty"`
	// SecretRef names a Secret of the same namespace. For https: username and password, or bearerToken, or
	// githubAppID, githubAppInstallationID, githubAppPrivateKey and perhaps githubAppBaseURL; tls.crt and tls.key of a
	// client; ca.crt of the host. For ssh: identity and known_hosts, both required; identity.pub; the identity's password.
	// +optional
	SecretRef *LocalRef `json:"secretRef,omitempty"`
	// +optional
	Webhook *SourceWebhook `json:"webhook,omitempty"`
	// Verify lets only signed revisions be applied.
	// +optional
	Verify *Verification `json:"verify,omitempty"`
}

// Reasons of a GitSource that is not Ready, beside ReasonSourceNotReady and ReasonSourceUnreachable.
const (
	ReasonSourceInvalid    = "SourceInvalid"    // the spec cannot be honoured; the message says what to correct
	ReasonSourceUnverified = "SourceUnverified" // the newest revision is not signed as the spec asks for; the last one that was is kept
)

// LocalRef names an object of the same namespace.
type LocalRef struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// GitSourceStatus is what the agent last saw of the repository.
type GitSourceStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Revision is the newest commit seen: "refs/heads/main@sha1:..."; without the ref for a commit that the spec names.
	Revision string `json:"revision,omitempty"`
	// VerifiedBy is who signed Revision, where the spec asks for signatures.
	VerifiedBy string `json:"verifiedBy,omitempty"`
	// FetchedAt is when Revision was first seen.
	// +optional
	FetchedAt  *metav1.Time       `json:"fetchedAt,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetConditions returns the conditions; fluxcd/pkg/runtime asks for it.
func (in *GitSource) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions; fluxcd/pkg/runtime asks for it.
func (in *GitSource) SetConditions(conditions []metav1.Condition) { in.Status.Conditions = conditions }

// GitSourceList is a list of GitSources.
//
// +kubebuilder:object:root=true
type GitSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GitSource `json:"items"`
}
