package analysis

import (
	"fmt"
	"slices"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Reasons of Verdicts.
const (
	ReasonAvailable     = "Available"           // Pass: all replicas are available
	ReasonNoReplicas    = "NoReplicas"          // Pass: the workload asks for none
	ReasonAlreadyStable = "AlreadyStable"       // Pass: what passed before
	ReasonCrashing      = "Crashing"            // Fail
	ReasonNeverReady    = "NeverReady"          // Fail
	ReasonCannotStart   = "ContainerCannotRun"  // Fail: its command or configuration does not fit
	ReasonRejected      = "RejectedByAPIServer" // Fail: no valid object
	ReasonReplaced      = "VerdictNotRecorded"  // Fail: known from the workload alone
	ReasonImagePull     = "ImagePull"           // Inconclusive, like all below
	ReasonUnschedulable = "Unschedulable"
	ReasonCreation      = "PodsNotCreated"
	ReasonNode          = "NodeNotReady"
	ReasonStarting      = "StillStarting"
	ReasonStableFails   = "StableFailsAlike"
	ReasonUnknown       = "StateUnknown"
	ReasonNotApplied    = "NotApplied"
	ReasonMissing       = "NotThereYet" // what a controller of Kubernetes makes
	ReasonHeld          = "WorkloadPaused"
	ReasonSlow          = "NotFinished"
)

// Finding is a Verdict in the making. The zero Finding is undecided.
type Finding struct {
	Outcome string // of v1alpha1, empty while undecided
	Reason  string
	Message string
	// Look says that pods have to be seen to go on.
	Look bool
	// Then is what to do when Outcome is Inconclusive.
	Then Insufficient
}

// closed says that looking again would change nothing.
func (f Finding) closed() bool {
	return f.Outcome == v1alpha1.VerdictPass || f.Outcome == v1alpha1.VerdictFail
}

const crashLoopRestarts = 3

// Judge says what is known of the target that has been placed since elapsed.
// Before the deadline it finds Pass, a crash loop, or nothing; after it, always something.
func Judge(o Observation, elapsed time.Duration) Finding {
	w, over := o.Workload, elapsed >= o.deadline()
	switch {
	case o.Refusal != nil && o.Refusal.Invalid:
		return fail(ReasonRejected, "the API server refused it: %s", o.Refusal.Message)
	case o.Refusal != nil && o.Refusal.Waits:
		return inconclusive(over, ReasonMissing, "%s", o.Refusal.Message)
	case o.Refusal != nil:
		return inconclusive(over, ReasonNotApplied, "it could not be applied: %s", o.Refusal.Message)
	case w.Knowledge == Unknown:
		return inconclusive(over, ReasonUnknown, "the workload could not be read: %s", w.Why)
	case w.Knowledge == Absent:
		return inconclusive(over, ReasonUnknown, "the workload is gone")
	case w.complete() && w.Wanted == 0:
		return Finding{Outcome: v1alpha1.VerdictPass, Reason: ReasonNoReplicas, Message: "the workload asks for no replicas"}
	case w.complete():
		return Finding{Outcome: v1alpha1.VerdictPass, Reason: ReasonAvailable, Message: fmt.Sprintf("all %d replicas are available", w.Wanted)}
	case w.Paused:
		return inconclusive(over, ReasonHeld, "the workload is paused by its spec")
	case !w.Current:
		return inconclusive(over, ReasonUnknown, "the workload's controller has not looked at it yet")
	case o.Pods == nil:
		// A list of pods costs; it is asked for when something has been missing for a while.
		return Finding{Look: over || elapsed >= o.interval() && w.Available < w.Replicas}
	case o.Pods.Unknown != "":
		return inconclusive(over, ReasonUnknown, "pods could not be listed: %s", o.Pods.Unknown)
	case over:
		return judgePods(o)
	case crashLoop(o.Pods.New):
		if early := judgePods(o); early.Outcome == v1alpha1.VerdictFail {
			return early
		}
	}
	return Finding{}
}

// judgePods blames the version only for pods that fail by themselves while those of the version before do not.
func judgePods(o Observation) Finding {
	var obstacle, fault Finding
	for _, pod := range o.Pods.New {
		finding := judgePod(pod, o.grace())
		if finding.Outcome == v1alpha1.VerdictFail && fault.Outcome == "" {
			fault = finding
		}
		if finding.Outcome == v1alpha1.VerdictInconclusive && obstacle.Outcome == "" {
			obstacle = finding
		}
	}
	failing := 0
	for _, pod := range o.Pods.Old {
		if judgePod(pod, o.grace()).Outcome == v1alpha1.VerdictFail {
			failing++
		}
	}
	switch {
	case fault.Outcome != "" && 2*failing >= len(o.Pods.Old) && failing > 0:
		return inconclusive(true, ReasonStableFails, "%d of %d pods of the version before fail alike: %s", failing, len(o.Pods.Old), fault.Message)
	case fault.Outcome != "":
		return fault
	case o.Workload.Creation != "":
		return inconclusive(true, ReasonCreation, "pods cannot be created: %s", o.Workload.Creation)
	case obstacle.Outcome != "":
		return obstacle
	default:
		return inconclusive(true, ReasonSlow, "%s, and none of the new pods fails", o.Workload.summary())
	}
}

// judgePod finds whose fault it is that pod is not ready; nothing when it is ready.
func judgePod(pod Pod, grace time.Duration) Finding {
	because := ""
	for _, word := range []string{pod.Reason, pod.Message} {
		if word != "" {
			because += ": " + word
		}
	}
	switch {
	case pod.Ready:
		return Finding{}
	case !pod.Scheduled:
		return inconclusive(true, ReasonUnschedulable, "pod %s has no node%s", pod.Name, because)
	case pod.NodeNotReady:
		return inconclusive(true, ReasonNode, "the node of pod %s is not ready", pod.Name)
	case slices.Contains(nodeReasons(), pod.Reason):
		return inconclusive(true, ReasonNode, "the node of pod %s does not run it%s", pod.Name, because)
	case slices.Contains(pullReasons(), pod.Reason):
		return inconclusive(true, ReasonImagePull, "pod %s does not get its image%s", pod.Name, because)
	case slices.Contains(startReasons(), pod.Reason):
		return fail(ReasonCannotStart, "pod %s cannot start%s", pod.Name, because)
	case pod.Reason == "CrashLoopBackOff" || pod.Exited || pod.Restarts >= crashLoopRestarts:
		return fail(ReasonCrashing, "pod %s has crashed %d times%s", pod.Name, max(pod.Restarts, 1), because)
	case pod.Running >= grace:
		return fail(ReasonNeverReady, "pod %s has been running for %s and is not ready", pod.Name, pod.Running.Round(time.Second))
	default:
		return inconclusive(true, ReasonStarting, "pod %s has not been running for %s yet%s", pod.Name, grace, because)
	}
}

// grace is how long a pod may run without being ready before that is its fault:
// one that had to wait long for its node or image gets some time too.
func (o Observation) grace() time.Duration { return min(o.deadline()/2, 30*time.Second) }

// crashLoop says that every pod has crashed often and none is ready: waiting longer shows nothing new.
func crashLoop(pods []Pod) bool {
	return len(pods) > 0 && !slices.ContainsFunc(pods, func(pod Pod) bool {
		return pod.Ready || pod.Restarts < crashLoopRestarts
	})
}

// pullReasons are those that the kubelet gives while an image is missing.
func pullReasons() []string {
	return []string{"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"}
}

// startReasons are those that the kubelet gives while what the version asks for cannot be run.
func startReasons() []string {
	return []string{"InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
}

// nodeReasons are those of pods that a node turned away or lost.
func nodeReasons() []string {
	return []string{
		"Evicted", "NodeLost", "NodeAffinity", "NodeShutdown", "Shutdown", "Terminated", "Preempting",
		"UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods", "NetworkNotReady",
	}
}

func fail(reason, format string, args ...any) Finding {
	return Finding{Outcome: v1alpha1.VerdictFail, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// inconclusive is undecided until the deadline is over.
func inconclusive(over bool, reason, format string, args ...any) Finding {
	if !over {
		return Finding{}
	}
	return Finding{Outcome: v1alpha1.VerdictInconclusive, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
