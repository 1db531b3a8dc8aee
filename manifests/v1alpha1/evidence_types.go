package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Evidence is what a Verdict was judged on besides its samples. All of it is bounded, in number and in length: it stands in
// status and in a commit. Text of pods is cut, without control characters, and with "[secret]" for the values of Secrets.
type Evidence struct {
	// Started is when the version began to come in.
	// +optional
	Started *metav1.Time `json:"started,omitempty"`
	// Metrics that were measured when it was judged, at most 8, those that failed first.
	// +optional
	Metrics []MetricEvidence `json:"metrics,omitempty"`
	// Trail is the time line of steps and traffic, oldest first, at most 40.
	// +optional
	Trail []TrailPoint `json:"trail,omitempty"`
	// Pods of the version that were not well, at most 3, those that crashed most first.
	// +optional
	Pods []PodEvidence `json:"pods,omitempty"`
}

// TrailPoint is one moment of a course: from At on it was at this step and with this much traffic.
type TrailPoint struct {
	At metav1.Time `json:"at"`
	// What it is: Started; Weight, Pause, Replicas, Header or Analysis for a step; Promoting; Paused or Resumed; Leaving for a
	// newer version; Withdrawn or Returning while traffic is taken; Passed or Failed.
	What string `json:"what"`
	// Step counts from zero.
	Step int32 `json:"step"`
	// Weight is the percentage of traffic.
	Weight int32 `json:"weight"`
	// +optional
	Header *RolloutHeader `json:"header,omitempty"`
}

// MetricEvidence is what one metric asked, what it wanted and what it got.
type MetricEvidence struct {
	Name string `json:"name"`
	// Queries as they were asked, with their variables filled in: those of the new version, then those of stable where both
	// are compared. Each is cut to 300 bytes.
	// +optional
	Queries []string    `json:"queries,omitempty"`
	Limit   MetricLimit `json:"limit"`
	// Outcome is what the metric says by itself: Pass, Fail or Inconclusive, empty while that is open.
	Outcome string `json:"outcome,omitempty"`
	// Passed, Failed and Inconclusive looks, and those in a row that got no answer.
	Passed       int32 `json:"passed"`
	Failed       int32 `json:"failed"`
	Inconclusive int32 `json:"inconclusive,omitempty"`
	Errors       int32 `json:"errors,omitempty"`
	// Said is what the last look showed.
	Said string `json:"said,omitempty"`
	// Since is when measuring began, Last the last look.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// +optional
	Last *metav1.Time `json:"last,omitempty"`
	// Test is what a sequential comparison has found.
	// +optional
	Test   *TestEvidence `json:"test,omitempty"`
	DryRun bool          `json:"dryRun,omitempty"`
}

// MetricLimit is what a metric is held against. Numbers are decimal text: an API has no floating point.
type MetricLimit struct {
	// Min and Max of a range.
	Min string `json:"min,omitempty"`
	Max string `json:"max,omitempty"`
	// Above and Below are shares of the stable version's value.
	Above string `json:"above,omitempty"`
	Below string `json:"below,omitempty"`
	// Alpha bounds the probability of a false Fail, Effect is the smallest difference of shares that matters.
	Alpha  string `json:"alpha,omitempty"`
	Effect string `json:"effect,omitempty"`
	// MinSamples are the requests that a Pass needs; MaxSamples end the test, zero is no end.
	MinSamples int64 `json:"minSamples,omitempty"`
	MaxSamples int64 `json:"maxSamples,omitempty"`
	// Count is how many looks make a Pass, FailureLimit how many may fail.
	Count        int32 `json:"count"`
	FailureLimit int32 `json:"failureLimit,omitempty"`
}

// TestEvidence is the state of a sequential comparison.
type TestEvidence struct {
	// EValue is the statistic: the highest that a bet of 1 against the canary's being as good as stable has become. Over 1/alpha
	// the canary is worse. P is the always-valid p-value, 1/EValue at most 1.
	EValue string `json:"eValue"`
	P      string `json:"p"`
	// Effect is the difference of the shares of bad requests that was seen, positive where the canary is worse.
	Effect   string        `json:"effect"`
	Canary   RequestCounts `json:"canary"`
	Baseline RequestCounts `json:"baseline"`
	// Bound is that of the latency in seconds at which the difference is plainest; without it Bad are errors.
	Bound string `json:"bound,omitempty"`
}

// RequestCounts are requests that were judged, and the bad ones among them.
type RequestCounts struct {
	Total int64 `json:"total"`
	Bad   int64 `json:"bad"`
}

// PodEvidence is what was wrong with one pod of the version.
type PodEvidence struct {
	Name string `json:"name"`
	// Reason of the pod itself, as Evicted.
	Reason string `json:"reason,omitempty"`
	// Containers that ended with an error or do not start, at most 3.
	// +optional
	Containers []ContainerEvidence `json:"containers,omitempty"`
	// Events are Warnings on the pod, newest first, at most 5.
	// +optional
	Events []EventEvidence `json:"events,omitempty"`
}

// ContainerEvidence is the last error of one container.
type ContainerEvidence struct {
	Name     string `json:"name"`
	Restarts int32  `json:"restarts,omitempty"`
	// Waiting is why it does not run now.
	Waiting string `json:"waiting,omitempty"`
	// ExitCode and Reason of its last end.
	// +optional
	ExitCode *int32 `json:"exitCode,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Last lines of its termination message, at most 5 of 160 bytes.
	// +optional
	Last []string `json:"last,omitempty"`
}

// EventEvidence is one Warning.
type EventEvidence struct {
	At      metav1.Time `json:"at"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	Count   int32       `json:"count,omitempty"`
}
