package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Application is a path of a repository that is rendered and kept applied in this cluster.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sapp,categories=slipway
// +kubebuilder:printcolumn:name="Path",type=string,JSONPath=`.spec.path`
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.applied.revision`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type Application struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ApplicationSpec   `json:"spec"`
	Status ApplicationStatus `json:"status,omitempty"`
}

// ApplicationSpec says what to render and how to keep it applied.
//
// +kubebuilder:validation:XValidation:rule="!has(self.sourceRef.kind) || self.sourceRef.kind != 'ChartSource' || has(self.helm)",message="spec.helm is required with a ChartSource (helm: {} for the chart's own values)"
type ApplicationSpec struct {
	SourceRef SourceRef `json:"sourceRef"`
	// Path from the root of the repository: a kustomization, a folder of YAML, or with helm a chart.
	// +kubebuilder:validation:MinLength=1
	Path string `json:"path"`
	// App is the name that slipway.yaml and trailers use; default: the object's name.
	// +optional
	App string `json:"app,omitempty"`
	// Environment of slipway.yaml that this Application belongs to. Without one nothing is reverted automatically.
	// +optional
	Environment string `json:"environment,omitempty"`
	// TargetNamespace is put on namespaced objects that name none.
	// +optional
	TargetNamespace string `json:"targetNamespace,omitempty"`
	// Helm renders Path as a chart instead.
	// +optional
	Helm    *HelmSpec `json:"helm,omitempty"`
	Overlay `json:",inline"`
	// Decryption decrypts files of the repository as they are read.
	// +optional
	Decryption *DecryptionSpec `json:"decryption,omitempty"`
	// Substitute replaces ${NAME} in the rendered objects.
	// +optional
	Substitute *SubstituteSpec `json:"substitute,omitempty"`
	// DependsOn are Applications that have to be ready before a new version of this one is applied.
	// +kubebuilder:validation:MaxItems=50
	// +listType=map
	// +listMapKey=name
	// +optional
	DependsOn []Dependency `json:"dependsOn,omitempty"`
	// Prune deletes what left Git.
	// +kubebuilder:default=true
	Prune *bool `json:"prune,omitempty"`
	// Drift says what to do when others take our fields.
	// +kubebuilder:validation:Enum=Heal;Report
	// +kubebuilder:default=Heal
	Drift DriftPolicy `json:"drift,omitempty"`
	// Ignore leaves fields of objects to others.
	// +kubebuilder:validation:MaxItems=50
	// +optional
	Ignore []IgnoreRule `json:"ignore,omitempty"`
	// +optional
	Images ImageRules `json:"images,omitempty"`
	// Timeout for the health of an apply; when it ends without a definite failure the result is Inconclusive.
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="want a duration such as 5m, and none below zero"
	Timeout metav1.Duration `json:"timeout,omitempty"`
	// HealthChecks judge kinds by conditions of your own.
	// +kubebuilder:validation:MaxItems=50
	// +optional
	HealthChecks []HealthCheck `json:"healthChecks,omitempty"`
	// ServiceAccountName, of this namespace, is who applies, reads and deletes for this Application: it can do what that
	// account may do and no more. Without one it is the agent. Rollouts are moved by the agent, so that an Application with
	// an account of its own cannot have any.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Interval between looks at everything although nothing tells of a change. Without one the watches alone decide.
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="at least 1s"
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
	// RetryInterval is how soon a trouble that may pass is looked at again. Without one that begins at once for what the API
	// server refused, and is longer each time, and is 5s for everything else.
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="at least 1s"
	// +optional
	RetryInterval *metav1.Duration `json:"retryInterval,omitempty"`
	// Suspend stops all reconciliation until it is false again.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
	// DeletionPolicy says what happens to the objects when the Application goes.
	// +kubebuilder:validation:Enum=Delete;Orphan
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// HelmSpec renders the chart at spec.path.
type HelmSpec struct {
	// ReleaseName; default: the Application's name.
	// +optional
	ReleaseName string `json:"releaseName,omitempty"`
	// ValuesFiles are paths from the root of the repository, merged in order over the chart's values.
	// +optional
	ValuesFiles []string `json:"valuesFiles,omitempty"`
	// ValuesFrom takes values from ConfigMaps and Secrets, merged in order over the files.
	// +optional
	ValuesFrom []ValuesReference `json:"valuesFrom,omitempty"`
	// Values are merged last.
	// +optional
	Values *apiextensionsv1.JSON `json:"values,omitempty"`
	// AllowUnstable permits template functions that give another answer each time (now, rand*, gen*, uuidv4).
	// +optional
	AllowUnstable bool `json:"allowUnstable,omitempty"`
}

// DriftPolicy says what to do when others take our fields.
type DriftPolicy string

// Drift policies.
const (
	DriftHeal   DriftPolicy = "Heal"
	DriftReport DriftPolicy = "Report"
)

// DeletionPolicy says what happens to the objects of a deleted Application.
type DeletionPolicy string

// Deletion policies.
const (
	DeletionDelete DeletionPolicy = "Delete"
	DeletionOrphan DeletionPolicy = "Orphan"
)

// ImageRules restrict how an Application names images. What images have to show is said by ImagePolicies.
type ImageRules struct {
	// RequireDigest refuses images that are not pinned by digest.
	// +optional
	RequireDigest bool `json:"requireDigest,omitempty"`
}

// ApplicationStatus is what the agent knows and did. Marks, Healthy and
// RevertRequest are the facts that the cluster alone knows.
type ApplicationStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Attempted is the newest revision that was looked at, with the Set that it renders to.
	// +optional
	Attempted *SetRef `json:"attempted,omitempty"`
	// Applied is what is applied now.
	// +optional
	Applied *SetRef `json:"applied,omitempty"`
	// Healthy is the last Set that was applied and healthy: what a revert goes back to.
	// +optional
	Healthy *SetRef `json:"healthy,omitempty"`
	// Marks are Sets that failed and are not applied again, newest first.
	// +optional
	Marks []Mark `json:"marks,omitempty"`
	// RevertRequest waits for the tip of Git to show the revert.
	// +optional
	RevertRequest *RevertRequest `json:"revertRequest,omitempty"`
	// LastRevert is the last automatic revert seen in Git; a second one needs a healthy state in between.
	// +optional
	LastRevert *RevertRecord `json:"lastRevert,omitempty"`
	// History has the last ten Sets, newest first.
	// +optional
	History []HistoryEntry `json:"history,omitempty"`
	// Hooks of the last ten Sets, newest first.
	// +optional
	Hooks []HookRun `json:"hooks,omitempty"`
	// Drift names what differs while the policy only reports.
	// +optional
	Drift []string `json:"drift,omitempty"`
	// Objects in the Inventory.
	Objects int `json:"objects,omitempty"`
	// LastHandledReconcileAt is the value of the reconcile annotation last acted on.
	LastHandledReconcileAt string             `json:"lastHandledReconcileAt,omitempty"`
	Conditions             []metav1.Condition `json:"conditions,omitempty"`
}

// SetRef is a Set with the Revision that it was rendered from.
type SetRef struct {
	Revision  string `json:"revision"`
	SetDigest string `json:"setDigest"`
	// +optional
	At *metav1.Time `json:"at,omitempty"`
}

// Mark keeps a failed Set from being applied again.
type Mark struct {
	SetDigest string  `json:"setDigest"`
	Revision  string  `json:"revision"`
	Verdict   Verdict `json:"verdict"`
}

// RevertRequest is what the agent wants Git to show. It is complete: whoever
// carries it out needs only the repository and the agent's public key.
type RevertRequest struct {
	URL         string `json:"url"`
	Branch      string `json:"branch"`
	Cluster     string `json:"cluster"`
	App         string `json:"app"`
	Environment string `json:"environment"`
	Path        string `json:"path"`
	Tip         string `json:"tip"`     // commit that the merge was computed on
	Failed      string `json:"failed"`  // commit of the failed Set
	Healthy     string `json:"healthy"` // commit of the last healthy Set
	Tree        string `json:"tree"`    // tree id that results
	// Message of the revert commit, with its trailers.
	Message string `json:"message"`
	// Holds are the image digests that the revert keeps out.
	// +optional
	Holds []HeldImage `json:"holds,omitempty"`
	// Direct is false when a person must decide: a branch is pushed instead, and Why says what is in the way.
	Direct bool   `json:"direct"`
	Why    string `json:"why,omitempty"`
	// At is when the request was made; the commit carries this time.
	At metav1.Time `json:"at"`
	// Signature is the agent's Ed25519 signature, base64, over the canonical JSON of all other fields.
	Signature string `json:"signature,omitempty"`
}

// HeldImage is one image digest that a Hold keeps out of an Environment.
type HeldImage struct {
	Name   string `json:"name"`   // without tag and digest
	Digest string `json:"digest"` // sha256:...
}

// RevertRecord is one automatic revert.
type RevertRecord struct {
	FailedSet  string `json:"failedSet"`
	HealthySet string `json:"healthySet"`
	// Commit that made it, or the branch that waits for a person.
	Commit string `json:"commit,omitempty"`
	Branch string `json:"branch,omitempty"`
	// Why Branch waits.
	Why string `json:"why,omitempty"`
	// Settled is true once the Application was healthy after it.
	Settled bool        `json:"settled,omitempty"`
	At      metav1.Time `json:"at"`
}

// HistoryEntry is one Set that was applied, for trace.
type HistoryEntry struct {
	Revision  string      `json:"revision"`
	SetDigest string      `json:"setDigest"`
	Images    []string    `json:"images,omitempty"`
	AppliedAt metav1.Time `json:"appliedAt"`
	// +optional
	Verdict *Verdict `json:"verdict,omitempty"`
	// TraceID leads from the promotion to the revert; from the commit's trailers, or born with the commit.
	TraceID string `json:"traceID,omitempty"`
}

// GetConditions returns the conditions; fluxcd/pkg/runtime asks for it.
func (in *Application) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions; fluxcd/pkg/runtime asks for it.
func (in *Application) SetConditions(conditions []metav1.Condition) {
	in.Status.Conditions = conditions
}

// ApplicationList is a list of Applications.
//
// +kubebuilder:object:root=true
type ApplicationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Application `json:"items"`
}
