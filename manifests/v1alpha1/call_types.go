package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RolloutWebhook calls a server on the way of a new version: it POSTs a RolloutCall as JSON. Only an answer with a status of
// 2xx within the timeout is a yes; everything else is a no, which waits and blames nothing.
//
// +kubebuilder:validation:XValidation:rule="!has(self.reverts) || !self.reverts || self.type == 'RollbackGate'",message="reverts: only a RollbackGate does"
type RolloutWebhook struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Type says when it is called. Confirm: when a step begins and before the version becomes stable, again and again until it
	// says yes; until then the version gets no more traffic, and its pods may come up. LoadTest: when the new version has got
	// the pods or the traffic of a step, again and again until it says yes; then the next step begins and is measured.
	// RollbackGate: all the time; its yes takes the new version out as 'slipway rollout abort' does, until a person says how it
	// goes on. Event: for all that happens.
	Type HookType `json:"type"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`
	// Interval between calls; of Event after one that was not answered by 2xx.
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="at least 1s"
	Interval metav1.Duration `json:"interval,omitempty"`
	// Timeout of one call, at most 10s.
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('10s')",message="more than 0s, at most 10s"
	Timeout metav1.Duration `json:"timeout,omitempty"`
	// Metadata is sent along.
	// +kubebuilder:validation:MaxProperties=32
	// +optional
	Metadata map[string]string `json:"metadata,omitempty"`
	// Reverts makes the yes of a RollbackGate a Fail: the commit is reverted in Git, too.
	// +optional
	Reverts      bool `json:"reverts,omitempty"`
	ServerAccess `json:",inline"`
}

// HookType is a kind of RolloutWebhook.
//
// +kubebuilder:validation:Enum=Confirm;LoadTest;RollbackGate;Event
type HookType string

// The types.
const (
	HookConfirm  HookType = "Confirm"
	HookLoadTest HookType = "LoadTest"
	HookGate     HookType = "RollbackGate"
	HookEvent    HookType = "Event"
)

// RolloutCall is what is sent to a RolloutWebhook. With a key in its Secret the header X-Signature is sha256=HEX, an HMAC of
// the body.
//
// +kubebuilder:object:generate=false
type RolloutCall struct {
	Webhook     string            `json:"webhook"` // its name
	Type        HookType          `json:"type"`
	Application string            `json:"application"`
	Namespace   string            `json:"namespace"`
	Rollout     string            `json:"rollout"`
	Phase       RolloutPhase      `json:"phase"`
	Bundle      string            `json:"bundle"`   // digest
	Revision    string            `json:"revision"` // the commit
	Step        int32             `json:"step"`     // from zero
	Weight      int32             `json:"weight"`   // percentage of traffic
	Metadata    map[string]string `json:"metadata,omitempty"`
	// Event is what happened, for webhooks of type Event.
	Event *RolloutOccasion `json:"event,omitempty"`
	// At is when it was sent.
	At time.Time `json:"at"`
}

// RolloutOccasion is something that happened to a version.
type RolloutOccasion struct {
	// What it is: Started, Step, Paused, Resumed, Passed or Failed.
	What string `json:"what"`
	// Reason and Message of a Verdict.
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string      `json:"message,omitempty"`
	At      metav1.Time `json:"at"`
	// Bundle digest and Revision of the version, with Step and Weight then.
	Bundle   string       `json:"bundle"`
	Revision string       `json:"revision,omitempty"`
	Phase    RolloutPhase `json:"phase"`
	Step     int32        `json:"step"`
	Weight   int32        `json:"weight"`
}

// HookAnswer is what a RolloutWebhook said last.
type HookAnswer struct {
	Name string `json:"name"`
	// Last is when it was called, in the present step for Confirm and LoadTest.
	// +optional
	Last *metav1.Time `json:"last,omitempty"`
	// Yes says that the present step may begin.
	Yes bool `json:"yes,omitempty"`
	// Said is why not.
	Said string `json:"said,omitempty"`
}
