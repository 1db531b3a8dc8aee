package v1alpha1

// Condition types. They follow kstatus: Ready is the summary, Reconciling and
// Stalled are present only while true.
const (
	ConditionReady       = "Ready"
	ConditionReconciling = "Reconciling"
	ConditionStalled     = "Stalled"
	// ConditionHealthy is True when all applied objects are healthy, False after a
	// definite failure, Unknown while that is not decided.
	ConditionHealthy = "Healthy"
	// ConditionDrifted is True while live state differs and the drift policy only reports it.
	ConditionDrifted = "Drifted"
	// ConditionReverting is True from the mark of a failed Set until Git shows the revert.
	ConditionReverting = "Reverting"
)

// Reasons of the conditions above.
const (
	ReasonSucceeded         = "Succeeded"         // the tip is applied and healthy
	ReasonProgressing       = "Progressing"       // applied, health not decided yet
	ReasonSourceNotReady    = "SourceNotReady"    // the GitSource has no revision
	ReasonSourceUnreachable = "SourceUnreachable" // the Git host does not answer; the last applied state is kept
	ReasonRenderFailed      = "RenderFailed"      // the path does not render
	ReasonEmptyRender       = "EmptyRender"       // it renders no object; nothing is pruned
	ReasonRefused           = "RefusedByPolicy"   // a policy rule denied an image or object
	ReasonUnverified        = "ImagesUnverified"  // nobody knows yet whether an image meets a policy
	ReasonApplyFailed       = "ApplyFailed"       // the API server rejected an object
	ReasonStateUnknown      = "StateUnknown"      // live state could not be read
	ReasonPruneHeld         = "PruneHeld"         // more deletions than the guard allows
	ReasonHealthFailed      = "HealthFailed"      // a definite failure of health
	ReasonHealthTimeout     = "HealthTimeout"     // not healthy within the timeout; not a failure
	ReasonMarked            = "FailedSetMarked"   // the tip renders to a Set that failed
	ReasonNoHealthySet      = "NoHealthySet"      // failed, and there is nothing to go back to
	ReasonRevertRequested   = "RevertRequested"   // the server was asked to push the revert
	ReasonRevertPushed      = "RevertPushed"      // the revert is in Git
	ReasonRevertNeedsPerson = "RevertNeedsPerson" // a branch waits for a person's decision
	ReasonSuspended         = "Suspended"
	ReasonPaused            = "Paused"
	ReasonDrift             = "Drift"
	ReasonDeleting          = "Deleting"
)

// ReasonContested says that others undo the healing of an object again and again, so that it is left alone for a while.
const ReasonContested = "HealingUndone"

// Reasons that have to do with other Applications, or with expressions.
const (
	ReasonDependencyNotReady = "DependencyNotReady" // an Application of spec.dependsOn is not ready
	ReasonDependencyCycle    = "DependencyCycle"    // spec.dependsOn leads back to this Application
	ReasonInvalidExpression  = "InvalidExpression"  // a CEL expression of the spec does not compile
	ReasonOwnedByAnother     = "OwnedByAnother"     // an object belongs to another Application, which wants it too
)
