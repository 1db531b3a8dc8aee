package v1alpha1

import "time"

// RolloutReport is the state of one cluster's Rollouts, as its agent saw them.
//
// +kubebuilder:object:generate=false
type RolloutReport struct {
	Cluster  string         `json:"cluster"`
	At       time.Time      `json:"at"`
	Rollouts []RolloutState `json:"rollouts"`
}

// RolloutState is how far one Rollout has come.
//
// +kubebuilder:object:generate=false
type RolloutState struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Application string       `json:"application,omitempty"`
	Phase       RolloutPhase `json:"phase"`
	// Stable and Target are Bundles.
	Stable *BundleRef `json:"stable,omitempty"`
	Target *BundleRef `json:"target,omitempty"`
	// Undo says that Target ran until lately, and comes in without steps and analysis.
	Undo bool `json:"undo,omitempty"`
	// Step counts from one, of Steps; both and Weight are absent while nothing runs beside stable.
	Step   int32          `json:"step,omitempty"`
	Steps  int32          `json:"steps,omitempty"`
	Weight int32          `json:"weight,omitempty"` // percentage of traffic
	Header *RolloutHeader `json:"header,omitempty"`
	// Metrics that are measured now, against their limits.
	Metrics []MetricEvidence `json:"metrics,omitempty"`
	// Trail is the time line of steps and traffic, oldest first.
	Trail []TrailPoint `json:"trail,omitempty"`
	// Order is what a person wants for a while, if that is in force.
	Order *RolloutOrder `json:"order,omitempty"`
	// Verdict on Target, with its evidence.
	Verdict *Verdict `json:"verdict,omitempty"`
	// Omitted is true when the evidence was left out, because the report would have been too long.
	Omitted bool `json:"omitted,omitempty"`
}

// SignedRollouts is a RolloutReport that nobody but its agent can make.
//
// +kubebuilder:object:generate=false
type SignedRollouts struct {
	// Payload is a RolloutReport in JSON, as text: what is signed is these bytes.
	Payload string `json:"payload"`
	// Signature is Ed25519, in standard base64, by the key whose public half is .slipway/agents/CLUSTER.pub, over the line
	// "slipway.dev/v1alpha1 Rollouts" and the payload.
	Signature string `json:"signature"`
}
