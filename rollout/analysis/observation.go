package analysis

import (
	"fmt"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Observation is what was seen at one moment.
type Observation struct {
	Now time.Time
	// Target is what the Rollout's spec asks for, nil while it asks for nothing.
	Target *v1alpha1.BundleRef
	// Deadline is how long a target may take; zero is DefaultDeadline.
	Deadline time.Duration
	Workload Workload
	// Pods of the workload; nil while nobody looked. Next asks for them by Inspect.
	// With a canary, the new ones are its pods and the old ones those of the workload.
	Pods *Pods
	// Strategy of the Rollout. With its zero value what follows is left out.
	Strategy Strategy
	// Size is how many pods the workload should have in all, whoever says so: the Bundle or an autoscaler.
	Size int32
	// Scaled says that an autoscaler owns the workload's number of pods: nobody else writes it, and Size follows it.
	Scaled bool
	// Canary is the workload beside the stable one.
	Canary  Workload
	Traffic Traffic
	// Undo is which versions may come back at once.
	Undo Undo
	// Looks at metrics, by name; nil while nobody looked. Next asks for them by Measure.
	Looks map[string]Look
	// Asked are the queries of metrics with their variables filled in, by name, for the evidence.
	Asked map[string][]string
	// Answers of Hooks, by name; nil while nobody called. Next asks for them by Call.
	Answers map[string]Answer
	// Approval is the last that a person gave, nil if none did.
	Approval *Approval
	// Order is what a person wants for a while besides Git, nil for nothing.
	Order *Order
	// Refusal is why the Bundle that is wanted could not be applied a moment ago, nil if it could or was not tried.
	Refusal *Refusal
}

// DefaultDeadline is that of the Rollout's API.
const DefaultDeadline = 5 * time.Minute

func (o Observation) deadline() time.Duration {
	if o.Deadline <= 0 {
		return DefaultDeadline
	}
	return o.Deadline
}

// interval is how long to wait before looking again: no event tells that a pod crashed once more.
func (o Observation) interval() time.Duration {
	return min(max(o.deadline()/10, time.Second), 15*time.Second)
}

// Knowledge says what is known about the workload.
type Knowledge uint8

// Unknown is what an error or a timeout gives. It is never Absent.
const (
	Unknown Knowledge = iota
	Absent
	Present
)

// Workload is a Deployment or StatefulSet as the API server has it.
type Workload struct {
	Knowledge Knowledge
	Why       string // it is Unknown
	Placed    Placed
	// Current says that the counts below are about the present spec (status.observedGeneration).
	Current   bool
	Paused    bool // spec.paused: somebody holds it
	Wanted    int32
	Replicas  int32 // of all versions
	Updated   int32
	Available int32 // of all versions
	// Partition is how many pods are to keep the version before, those with the lowest ordinals; zero for a Deployment.
	Partition int32
	// First is the lowest ordinal; zero for a Deployment.
	First int32
	// Creation is why pods cannot be created (condition ReplicaFailure), empty if they can.
	Creation string
}

// complete says that all replicas are of the newest version, but for those that are to keep another, and available, and none
// is left over.
func (w Workload) complete() bool {
	if w.Knowledge != Present || !w.Current {
		return false
	}
	return w.Wanted == 0 || w.Updated >= w.Wanted-w.Partition && w.Replicas == w.Wanted && w.Available >= w.Wanted
}

func (w Workload) summary() string {
	switch {
	case w.Knowledge == Unknown:
		return "state unknown"
	case w.Knowledge == Absent:
		return "no workload"
	case !w.Current:
		return "not observed by its controller yet"
	}
	return fmt.Sprintf("%d of %d available, %d of the new version", w.Available, w.Wanted, w.Updated)
}

// Pods is what was seen of a workload's pods, without those that are going.
type Pods struct {
	Unknown string // why they could not be listed, empty if they could
	New     []Pod  // of the newest version
	Old     []Pod  // of the versions before
}

// Pod is one pod, as far as it matters for judging.
type Pod struct {
	Name      string
	Ready     bool
	Scheduled bool
	// NodeNotReady says that its node is not Ready or gone.
	NodeNotReady bool
	// Reason is that of the pod itself, like Evicted, or of a waiting container, like
	// ImagePullBackOff; Message explains it.
	Reason  string
	Message string
	// Restarts is the highest restart count of its containers.
	Restarts int32
	// Exited says that a container ended with an error and does not run now.
	Exited bool
	// Running is how long all its containers have been running, zero while one is not.
	Running time.Duration
}

// Refusal is the answer of the API server to an apply.
type Refusal struct {
	// Invalid says that the Bundle itself was refused. False means that it could
	// not be asked, or that something other than the Bundle is in the way.
	Invalid bool
	// Waits says that nothing was refused: something of Kubernetes has to come first, which is nobody's fault.
	Waits   bool
	Message string
}
