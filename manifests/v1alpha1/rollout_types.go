package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Rollout is a workload's strategy and its progress. It lives beside the workload in Git.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sro,categories=slipway
// +kubebuilder:printcolumn:name="Workload",type=string,JSONPath=`.spec.workloadRef.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Stable",type=string,JSONPath=`.status.stable.bundle`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type Rollout struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RolloutSpec   `json:"spec"`
	Status RolloutStatus `json:"status,omitempty"`
}

// RolloutSpec names the workload and how a new version of it comes in.
type RolloutSpec struct {
	WorkloadRef WorkloadRef `json:"workloadRef"`
	// Services that send traffic to the workload; they move with it.
	// +optional
	Services []LocalRef `json:"services,omitempty"`
	// Routes that send to these Services; they move with them, and share out traffic while a canary runs.
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Routes   []RouteRef `json:"routes,omitempty"`
	Strategy Strategy   `json:"strategy"`
	// Undo lets versions that ran until lately come back without steps and analysis; without it none does.
	// +optional
	Undo *UndoWindow `json:"undo,omitempty"`
	// Bundle is set by the reconciler at apply and never stands in Git: what to roll out.
	// +optional
	Bundle *BundleRef `json:"bundle,omitempty"`
}

// WorkloadRef names a Deployment or StatefulSet of the same namespace. A StatefulSet has one pod of each ordinal: it takes a
// new version in itself (strategy rolling), from the highest ordinal down, and its pods use copies of their ConfigMaps and
// Secrets that go forward and back with them.
//
// +kubebuilder:validation:XValidation:rule="has(self.kind) == has(oldSelf.kind) && (!has(self.kind) || self.kind == oldSelf.kind)",message="the kind of the workload cannot change (give the Rollout of the other one another name)"
type WorkloadRef struct {
	// +kubebuilder:validation:Enum=Deployment;StatefulSet
	// +kubebuilder:default=Deployment
	Kind string `json:"kind,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// RollingStrategy lets the workload replace its pods, all at once or in batches, and watches the clock.
type RollingStrategy struct {
	// ProgressDeadline is how long the new version may take until all of its replicas are available; with batches that is for each.
	// +kubebuilder:default="5m"
	ProgressDeadline metav1.Duration `json:"progressDeadline,omitempty"`
	// Batches bring the new version of a Deployment in as the Deployment NAME-canary: the pods of a batch come before as
	// many of the others go. A StatefulSet replaces the pods with the highest ordinals. Services reach the pods of both
	// versions.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Batches []RollingBatch `json:"batches,omitempty"`
	// Webhooks are called on the way. They need batches.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Webhooks []RolloutWebhook `json:"webhooks,omitempty"`
}

// BundleRef points at the ControllerRevision that holds a Bundle.
type BundleRef struct {
	Name string `json:"name"` // of the ControllerRevision, in the Rollout's namespace
	// Digest of the Bundle's objects.
	Digest string `json:"digest"`
	// SetDigest is the Application's Set that the Bundle was cut from.
	SetDigest string `json:"setDigest"`
	// Revision is the commit that the Set was rendered from.
	Revision string `json:"revision,omitempty"`
}

// RolloutPhase is a coarse word for people; the status fields are what counts.
type RolloutPhase string

// The phases of a Rollout.
const (
	PhasePending     RolloutPhase = "Pending"     // no bundle yet
	PhaseProgressing RolloutPhase = "Progressing" // the new version comes in
	PhaseReturning   RolloutPhase = "Returning"   // failed; stable is being restored
	PhaseHealthy     RolloutPhase = "Healthy"     // the target is stable
	PhaseFailed      RolloutPhase = "Failed"      // stable serves, the target has failed
	PhasePaused      RolloutPhase = "Paused"      // inconclusive: waits for what is not the version's fault
)

// RolloutStatus is what the rollout loop knows and did.
type RolloutStatus struct {
	ObservedGeneration int64        `json:"observedGeneration,omitempty"`
	Phase              RolloutPhase `json:"phase,omitempty"`
	// Stable is the last Bundle that passed.
	// +optional
	Stable *BundleRef `json:"stable,omitempty"`
	// Target is the Bundle being rolled out or judged last.
	// +optional
	Target *BundleRef `json:"target,omitempty"`
	// Undo says that Target ran until lately, and comes in without steps and analysis.
	Undo bool `json:"undo,omitempty"`
	// History are Bundles that were stable or have failed, newest first, at most 10.
	// +optional
	History []PastBundle `json:"history,omitempty"`
	// StartedAt is when Target began.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// Verdict on Target, empty while it is not judged.
	// +optional
	Verdict *Verdict `json:"verdict,omitempty"`
	// Samples of Target while it is not judged, oldest first, at most 20.
	// +optional
	Samples []Sample `json:"samples,omitempty"`
	// Course is how far Target has come on a strategy that runs it beside Stable.
	// +optional
	Course *RolloutCourse `json:"course,omitempty"`
	// Outbox is what webhooks of type Event are still to be told, oldest first, at most 16.
	// +optional
	Outbox []RolloutOccasion `json:"outbox,omitempty"`
	// Applied are the objects that the rollout loop has put in place, to tell when others change them.
	// +optional
	Applied []AppliedObject `json:"applied,omitempty"`
	// AppliedBundle is the digest of the Bundle that Applied is of. With a canary it says more: which one, and its share.
	AppliedBundle string `json:"appliedBundle,omitempty"`
	// TakenOver is the digest of the configuration with which the workload ran when it was put under the Rollout. Its pods carry
	// no digest of that one, so that they need not be replaced.
	TakenOver  string             `json:"takenOver,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AppliedObject is one object of the Rollout's namespace as it was applied.
type AppliedObject struct {
	// +optional
	Group   string `json:"group,omitempty"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	// Fields is the digest of the rollout loop's managedFields entry.
	Fields string `json:"fields"`
}

// Verdict is the outcome with the evidence for it.
type Verdict struct {
	// +kubebuilder:validation:Enum=Pass;Fail;Inconclusive
	Outcome string      `json:"outcome"`
	Reason  string      `json:"reason"`  // CamelCase
	Message string      `json:"message"` // for people
	At      metav1.Time `json:"at"`
	// Bundle digest and Set digest that were judged.
	Bundle    string `json:"bundle,omitempty"`
	SetDigest string `json:"setDigest,omitempty"`
	// Samples that it was judged on, oldest first, at most 20.
	Samples []Sample `json:"samples,omitempty"`
	// Evidence is what else it was judged on.
	// +optional
	Evidence *Evidence `json:"evidence,omitempty"`
}

// Outcomes of a Verdict.
const (
	VerdictInconclusive = "Inconclusive"
	VerdictPass         = "Pass"
	VerdictFail         = "Fail"
)

// Sample is one observation that a Verdict was judged on.
type Sample struct {
	At    metav1.Time `json:"at"`
	Check string      `json:"check"` // "available replicas"
	Value string      `json:"value"` // "1 of 3 available, 0 of 3 updated ready"
}

// GetConditions returns the conditions; fluxcd/pkg/runtime asks for it.
func (in *Rollout) GetConditions() []metav1.Condition { return in.Status.Conditions }

// SetConditions replaces the conditions; fluxcd/pkg/runtime asks for it.
func (in *Rollout) SetConditions(conditions []metav1.Condition) { in.Status.Conditions = conditions }

// RolloutList is a list of Rollouts.
//
// +kubebuilder:object:root=true
type RolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Rollout `json:"items"`
}
