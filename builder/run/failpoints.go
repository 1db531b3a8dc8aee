package run

// Failpoints of the Loop, in the order of a Run's life. Each stands between two changes that are seen from outside.
const (
	FailpointDelivery = "run-after-delivery-before-record"
	FailpointRecord   = "run-after-record-before-acknowledgement"
	FailpointHint     = "run-after-ready-before-hint"
	FailpointReported = "run-after-report-before-attest"
	FailpointAttested = "run-after-attest-before-verdict"
	FailpointVerdict  = "run-after-verdict-before-next"
	FailpointBegun    = "run-after-begun-before-promote"
	FailpointPromoted = "run-after-promote-before-verdict"
	FailpointLast     = "run-after-last-verdict-before-finish"
	FailpointFinished = "run-after-finish-before-status"
	FailpointRequeue  = "run-after-requeue-before-hint"
)

// Failpoints of a Worker, in the order of a Job's life.
const (
	FailpointLease    = "worker-after-lease-before-claim"
	FailpointClaim    = "worker-after-claim-before-steps"
	FailpointCheckout = "worker-in-checkout"
	FailpointRun      = "worker-in-run" // at the first line that a command prints
	FailpointStep     = "worker-after-run-before-next-step"
	FailpointBuild    = "worker-in-go-image"
	FailpointPush     = "worker-after-push-before-report"
	FailpointReport   = "worker-after-report-before-release"
)
