package apply

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// HealthState of an object.
type HealthState uint8

// The states. Only Failed is definite; Progressing may last for ever.
const (
	HealthUnknown HealthState = iota
	Progressing
	Healthy
	Failed
)

// Health of an object, with a message for people.
type Health struct {
	State   HealthState
	Message string
}

// HealthOf judges a whole object (kstatus; Rollouts by their Bundle's verdict).
func HealthOf(object *unstructured.Unstructured) Health { return Health{} }
