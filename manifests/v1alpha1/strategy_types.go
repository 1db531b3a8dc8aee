package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Strategy is exactly one of its fields.
//
// +kubebuilder:validation:XValidation:rule="[has(self.rolling), has(self.canary), has(self.blueGreen)].filter(given, given).size() == 1",message="give exactly one of rolling, canary and blueGreen"
type Strategy struct {
	// Rolling lets the workload replace its pods. It is the one for a StatefulSet.
	// +optional
	Rolling *RollingStrategy `json:"rolling,omitempty"`
	// Canary runs the new version beside the old one and gives it more and more of the pods.
	// +optional
	Canary *CanaryStrategy `json:"canary,omitempty"`
	// BlueGreen runs the new version beside the old one in full size and moves the Services to it at once.
	// +optional
	BlueGreen *BlueGreenStrategy `json:"blueGreen,omitempty"`
	// Alpha bounds the probability that errors or latency, of any metric in any step, call an equal version worse. It is
	// shared out evenly over the metrics that give none themselves, after those that do.
	// +kubebuilder:default="0.05"
	Alpha *resource.Quantity `json:"alpha,omitempty"`
}

// ProgressDeadline is how long pods of the strategy that is given may take; zero without one.
func (s Strategy) ProgressDeadline() time.Duration {
	switch {
	case s.Rolling != nil:
		return s.Rolling.ProgressDeadline.Duration
	case s.Canary != nil:
		return s.Canary.ProgressDeadline.Duration
	case s.BlueGreen != nil:
		return s.BlueGreen.ProgressDeadline.Duration
	}
	return 0
}

// RouteRef names a Route of the Gateway API in the same namespace.
type RouteRef struct {
	// +kubebuilder:validation:Enum=HTTPRoute;GRPCRoute
	// +kubebuilder:default=HTTPRoute
	Kind string `json:"kind,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// CanaryStrategy runs the new version as the Deployment NAME-canary and shares traffic out in steps. Where the Rollout
// names Routes, these send to the Services SERVICE-stable and SERVICE-canary by weight, and the Deployment itself keeps
// its size. Without Routes the share is one of pods: the canary grows as the Deployment shrinks, and the Services send to
// the pods of both. Where an autoscaler says the size (spec.replicas does not stand in Git), the Deployment keeps that, and the
// canary has its percentage of it on top.
type CanaryStrategy struct {
	// ProgressDeadline is how long the pods that a step asks for may take until they are available.
	// +kubebuilder:default="5m"
	ProgressDeadline metav1.Duration `json:"progressDeadline,omitempty"`
	// Steps are done one after the other; after the last the new version takes all traffic and becomes stable.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	Steps []CanaryStep `json:"steps"`
	// Analysis watches from the first traffic to the end.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Analysis []MetricCheck `json:"analysis,omitempty"`
	// DynamicStableScale makes the Deployment as much smaller as it has less traffic. When a version fails, traffic returns
	// only as fast as the Deployment grows again. It needs Routes, and has no effect where an autoscaler says the size.
	// +optional
	DynamicStableScale bool `json:"dynamicStableScale,omitempty"`
	// Webhooks are called on the way.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Webhooks []RolloutWebhook `json:"webhooks,omitempty"`
}

// CanaryStep is exactly one of its fields.
//
// +kubebuilder:validation:XValidation:rule="[has(self.weight), has(self.pause), has(self.replicas), has(self.header), has(self.analysis)].filter(given, given).size() == 1",message="give exactly one of weight, pause, replicas, header and analysis"
type CanaryStep struct {
	// Weight is the new version's percentage of traffic; without Routes that of all pods, rounded up. The pods for it
	// have to be available first.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	Weight *int32 `json:"weight,omitempty"`
	// Pause waits, for a time or until approved.
	// +optional
	Pause *PauseStep `json:"pause,omitempty"`
	// Replicas is the percentage of the workload's size that the canary has at least from here on.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// Header brings requests that carry it to the new version, whatever the weight; without name and value that ends. It
	// needs Routes.
	// +optional
	Header *HeaderStep `json:"header,omitempty"`
	// Analysis goes on when all metrics have passed.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Analysis []MetricCheck `json:"analysis,omitempty"`
}

// HeaderStep is a header with its exact value.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) == has(self.value)",message="give name and value, or neither to end the match"
type HeaderStep struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]{1,256}$`
	// +optional
	Name string `json:"name,omitempty"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Value string `json:"value,omitempty"`
}

// PauseStep waits.
type PauseStep struct {
	// For is how long; without it until a person approves (slipway rollout promote).
	// +optional
	For metav1.Duration `json:"for,omitempty"`
}

// BlueGreenStrategy moves all traffic of the Rollout's Services at once. Until then the new version is reached by
// the Services NAME-canary.
type BlueGreenStrategy struct {
	// ProgressDeadline is how long the pods of the new version may take until they are available.
	// +kubebuilder:default="5m"
	ProgressDeadline metav1.Duration `json:"progressDeadline,omitempty"`
	// Before is measured before the new version has traffic.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Before []MetricCheck `json:"before,omitempty"`
	// Approve waits for a person before the switch (slipway rollout promote).
	// +optional
	Approve bool `json:"approve,omitempty"`
	// After is measured once it has the traffic; the old version is kept in full meanwhile.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	After []MetricCheck `json:"after,omitempty"`
	// ScaleDownDelay is how long the old version is kept after that.
	// +optional
	ScaleDownDelay metav1.Duration `json:"scaleDownDelay,omitempty"`
	// Webhooks are called on the way.
	// +kubebuilder:validation:MaxItems=20
	// +optional
	Webhooks []RolloutWebhook `json:"webhooks,omitempty"`
}

// MetricCheck measures again and again, with the agent's Prometheus where nothing else is given. In queries {{canary}} and
// {{stable}} become regular expressions for the names of the pods of both versions, {{pods}} that of the version that is
// measured, {{workload}} the name of its Deployment, {{namespace}} the Rollout's, and {{interval}} the interval as Prometheus
// writes it. With a canary and Routes, {{service}} is one for the names of the Services SERVICE-canary or SERVICE-stable of
// the version that is measured, for what a gateway counts.
//
// +kubebuilder:validation:XValidation:rule="[has(self.range), has(self.relative), has(self.errors), has(self.latency), has(self.job)].filter(given, given).size() == 1",message="give exactly one of range, relative, errors, latency and job"
type MetricCheck struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Range holds the value of a query within bounds.
	// +optional
	Range *RangeCheck `json:"range,omitempty"`
	// Relative holds the canary's value close to the stable version's.
	// +optional
	Relative *RelativeCheck `json:"relative,omitempty"`
	// Errors compares shares of bad requests of both versions, by a test that may be looked at at any time.
	// +optional
	Errors *ErrorsCheck `json:"errors,omitempty"`
	// Latency compares histograms of both versions by such a test.
	// +optional
	Latency *LatencyCheck `json:"latency,omitempty"`
	// Job is run for each look.
	// +optional
	Job         *JobCheck `json:"job,omitempty"`
	CheckSource `json:",inline"`

	// InitialDelay is waited before the first look.
	// +optional
	InitialDelay metav1.Duration `json:"initialDelay,omitempty"`
	// Interval between looks.
	// +kubebuilder:default="30s"
	Interval metav1.Duration `json:"interval,omitempty"`
	// Count is how many looks that showed something make a Pass.
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	Count int32 `json:"count,omitempty"`
	// FailureLimit is how many looks of range, relative and job may fail.
	// +kubebuilder:validation:Minimum=0
	// +optional
	FailureLimit int32 `json:"failureLimit,omitempty"`
	// ConsecutiveErrorLimit is how many looks in a row may get no answer.
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=0
	ConsecutiveErrorLimit *int32 `json:"consecutiveErrorLimit,omitempty"`
	// InconclusiveLimit is how many looks may get an answer that says nothing.
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=0
	InconclusiveLimit *int32 `json:"inconclusiveLimit,omitempty"`
	// OnInsufficientData is what to do when one of the last two limits is exceeded, or too few requests came.
	// +kubebuilder:default=Pause
	// +kubebuilder:validation:Enum=Pause;Proceed;Rollback
	OnInsufficientData string `json:"onInsufficientData,omitempty"`
	// DryRun says to measure and to tell, and to decide nothing.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// What MetricCheck.OnInsufficientData may be.
const (
	InsufficientPause    = "Pause"
	InsufficientProceed  = "Proceed"
	InsufficientRollback = "Rollback"
)

// RangeCheck is from Min to Max, both included.
//
// +kubebuilder:validation:XValidation:rule="has(self.min) || has(self.max)",message="give min, max or both"
type RangeCheck struct {
	// Query has one result. It is left out where http is asked.
	// +optional
	Query string `json:"query,omitempty"`
	// +optional
	Min *resource.Quantity `json:"min,omitempty"`
	// +optional
	Max *resource.Quantity `json:"max,omitempty"`
}

// RelativeCheck is how far the canary's value may be above and below that of stable, as a share of it: 0.1 is ten percent.
//
// +kubebuilder:validation:XValidation:rule="has(self.above) || has(self.below)",message="give above, below or both"
type RelativeCheck struct {
	// Query is asked for both versions, by {{pods}} or {{service}}. It is left out where http is asked, for both versions, too.
	// +optional
	Query string `json:"query,omitempty"`
	// +optional
	Above *resource.Quantity `json:"above,omitempty"`
	// +optional
	Below *resource.Quantity `json:"below,omitempty"`
}

// ErrorsCheck asks for raw counters, not rates.
//
// +kubebuilder:validation:XValidation:rule="has(self.gateway) ? !has(self.total) && !has(self.bad) : has(self.total) && has(self.bad)",message="give gateway, or both of total and bad"
type ErrorsCheck struct {
	// Gateway is what the Routes are served by, for its own count of requests and of those answered by 5xx among them.
	// +optional
	Gateway Gateway `json:"gateway,omitempty"`
	// Total is the query for all requests and Bad that for the bad ones among them, by {{pods}} or {{service}}.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Total string `json:"total,omitempty"`
	// +kubebuilder:validation:MinLength=1
	// +optional
	Bad              string `json:"bad,omitempty"`
	SequentialOption `json:",inline"`
}

// LatencyCheck asks for the buckets of a classic histogram in seconds.
//
// +kubebuilder:validation:XValidation:rule="has(self.gateway) != has(self.buckets)",message="give gateway or buckets"
type LatencyCheck struct {
	// Gateway is what the Routes are served by, for its own histogram of the time that answers took.
	// +optional
	Gateway Gateway `json:"gateway,omitempty"`
	// Buckets is the query for them, by {{pods}} or {{service}}; it keeps the label le.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Buckets          string `json:"buckets,omitempty"`
	SequentialOption `json:",inline"`
}

// Gateway is a product whose metrics are known. With any other the queries have to be given.
//
// +kubebuilder:validation:Enum=Traefik
type Gateway string

// GatewayTraefik counts requests of its provider for the Gateway API by Service, from version 3.0 on.
const GatewayTraefik Gateway = "Traefik"

// SequentialOption is how sure a test has to be.
type SequentialOption struct {
	// Alpha bounds the probability that an equal canary is ever called worse; without one it is this metric's share of the
	// strategy's.
	// +optional
	Alpha *resource.Quantity `json:"alpha,omitempty"`
	// Effect is the smallest difference of shares that matters: 0.005 is half a percentage point.
	// +kubebuilder:default="0.005"
	Effect *resource.Quantity `json:"effect,omitempty"`
	// MinSamples is how many requests of the canary a Pass needs at least.
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=1
	MinSamples int64 `json:"minSamples,omitempty"`
	// MaxSamples of the canary end the test; zero is no end.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxSamples int64 `json:"maxSamples,omitempty"`
}

// RolloutCourse is how far a target has come on a canary or blue-green strategy.
type RolloutCourse struct {
	// Canary is the Bundle that runs beside stable.
	// +optional
	Canary *BundleRef `json:"canary,omitempty"`
	// Strategy is the digest of the strategy that is followed; with another one the canary starts over.
	// +optional
	Strategy string `json:"strategy,omitempty"`
	// Step counts from zero; Since is when it began.
	Step int32 `json:"step"`
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Weight is the canary's percentage of traffic, Replicas the percentage of the workload's size that it has at least.
	Weight   int32 `json:"weight"`
	Replicas int32 `json:"replicas,omitempty"`
	// Header brings requests to the canary besides.
	// +optional
	Header *RolloutHeader `json:"header,omitempty"`
	// Lacks is since when the canary is smaller than it has to be.
	// +optional
	Lacks *metav1.Time `json:"lacks,omitempty"`
	// Hindered is since when what is asked for could not be put in place for other reasons.
	// +optional
	Hindered *metav1.Time `json:"hindered,omitempty"`
	// Promoting says that the workload becomes the target, Leaving and Withdrawn that the canary goes.
	Promoting bool `json:"promoting,omitempty"`
	Leaving   bool `json:"leaving,omitempty"`
	Withdrawn bool `json:"withdrawn,omitempty"`
	// Tallies of the step's metrics and Background of those that watch, in the order of the spec.
	// +optional
	Tallies []MetricTally `json:"tallies,omitempty"`
	// +optional
	Background []MetricTally `json:"background,omitempty"`
	// Called are the webhooks' last answers, in the order of the spec.
	// +optional
	Called []HookAnswer `json:"called,omitempty"`
	// Trail is the time line of the course, oldest first, at most 40.
	// +optional
	Trail []TrailPoint `json:"trail,omitempty"`
}

// StepApproval is a person's yes to one step of one Bundle.
//
// +kubebuilder:object:generate=false
type StepApproval struct {
	// Bundle is the digest of the Bundle and Step what status.course has, from zero.
	Bundle string `json:"bundle"`
	Step   int    `json:"step"`
	// Answers is the time of what was waiting: that of the Verdict, else since when the Rollout is at the step. With it no
	// clock but the agent's counts.
	Answers time.Time `json:"answers"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
}

// RolloutOrder is what a person wants of the rollout of one Bundle for a while, beside Git.
//
// +kubebuilder:object:generate=false
type RolloutOrder struct {
	Bundle string `json:"bundle"` // digest
	// Abort takes the new version out; without it the Rollout goes no step further. Both go on being judged.
	Abort  bool      `json:"abort,omitempty"`
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	// Until ends it, at most LongestOrder after At.
	Until time.Time `json:"until"`
}

// LongestOrder bounds what breaks the rule that Git decides.
const LongestOrder = 24 * time.Hour

// RolloutHeader is a header of a request with its exact value.
type RolloutHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// MetricTally is what one metric has shown so far.
type MetricTally struct {
	// Said is what the last look showed, for people.
	Said string `json:"said,omitempty"`
	// State is all that is remembered of the metric, JSON.
	State string `json:"state"`
}
