package plan

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
)

// Bundle is what a Rollout moves as one.
type Bundle struct {
	Rollout manifests.Ref
	// Objects are the workload, the Services that the Rollout names and the
	// ConfigMaps and Secrets that the workload uses, ordered by Ref; those of the Set, not copies.
	Objects []*unstructured.Unstructured
	// Digest over Objects.
	Digest manifests.Digest
}

// Cut finds the Bundles of all Rollouts in set, ordered by Rollout, and the
// objects that belong to one. Configuration that several Rollouts use stays with
// the reconciler. It fails when a Rollout names a workload or Service that set
// lacks, or when two Rollouts name the same one.
func Cut(set manifests.Set) ([]Bundle, map[manifests.Ref]bool, error) {
	return nil, nil, nil
}
