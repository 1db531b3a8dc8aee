package manifests

import (
	"encoding/base64"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/policy"
)

// Hooks are Jobs that run once for a Set, at one point of its way.
const (
	// AnnotationHook on a Job in Git makes it a hook: one of the values below. On other objects it only orders them: what is
	// annotated pre-apply is applied before these hooks begin, since they use it, and everything else with the rest.
	AnnotationHook = "slipway.dev/hook"
	// AnnotationHookSet is on every hook that was started: the digest of the Set that it runs for.
	AnnotationHookSet = "slipway.dev/hook-set"

	HookPreApply  = "pre-apply"  // after CustomResourceDefinitions and Namespaces, before everything else
	HookPostApply = "post-apply" // when all objects are applied and healthy, before the Set counts as healthy
	HookOnFailure = "on-failure" // after the Set has failed
)

// SecretValues are the values that a Secret holds; none for other objects.
func SecretValues(object *unstructured.Unstructured) []policy.Secret {
	if !isSecret(RefOf(object)) {
		return nil
	}
	var values []policy.Secret
	data, _, _ := unstructured.NestedStringMap(object.Object, "data")
	for _, encoded := range data {
		if value, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			values = append(values, policy.NewSecret(string(value)))
		}
	}
	text, _, _ := unstructured.NestedStringMap(object.Object, "stringData")
	for _, value := range text {
		values = append(values, policy.NewSecret(value))
	}
	return values
}
