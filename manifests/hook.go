package manifests

// AnnotationHook makes an object a hook: it is applied at that point instead of with the others, by its wave among the
// hooks of the same point.
const AnnotationHook = "slipway.dev/hook"

// The values of AnnotationHook.
const (
	HookPreApply  = "pre-apply"
	HookPostApply = "post-apply"
	HookOnFailure = "on-failure"
)
