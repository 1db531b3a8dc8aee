package plan_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/reconciler/plan"
)

func TestStored(t *testing.T) {
	for name, c := range map[string]struct {
		owner metav1.OwnerReference
		want  bool
	}{
		"a Rollout":                 {metav1.OwnerReference{APIVersion: "slipway.dev/v1alpha1", Kind: "Rollout"}, true},
		"somebody else's Rollout":   {metav1.OwnerReference{APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout"}, false},
		"another object of Slipway": {metav1.OwnerReference{APIVersion: "slipway.dev/v1alpha1", Kind: "Application"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			object := &metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", APIVersion: "apps/v1"}, c.owner}}
			if got := plan.LiveOf(object, "slipway").Stored; got != c.want {
				t.Errorf("owned by %v it is stored: %v", c.owner, got)
			}
		})
	}
}
