package analysis

import (
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Course is how far a target has come on its Strategy. It is a part of State; the zero value is no course.
type Course struct {
	// Canary is the Bundle that runs beside stable, nil for none.
	Canary *v1alpha1.BundleRef
	// Way is the digest of the Strategy that is followed: steps and tallies of another one would be misread.
	Way string
	// Step counts from zero; Since is when it began.
	Step  int
	Since time.Time
	// Weight is the percentage of traffic that Canary is given, Replicas the percentage of the workload's size that it
	// has at least, Header what brings requests to it besides.
	Weight, Replicas int
	Header           Header
	// Lacks is since when the canary is smaller than it has to be, zero while it is not.
	Lacks time.Time
	// Hindered is since when something else than pods keeps what is asked for from being in place, zero while nothing does.
	Hindered time.Time
	// Promoting says that stable's workload is being updated while the canary serves.
	Promoting bool
	// Leaving says that the target is another one by now: the canary is on its way out.
	Leaving bool
	// Withdrawn says that the canary has been taken out without a Fail: a person has to say how it goes on.
	Withdrawn bool
	// Tallies of the step's metrics, and of those in the background once the canary has traffic.
	Tallies, Background []Tally
	// Called are the answers of the Strategy's Hooks, in their order.
	Called []Called
	// Trail is its time line, oldest first, at most MaxTrail.
	Trail []v1alpha1.TrailPoint
}

// Approval is a person's yes to one step of one Bundle: it cannot be taken for another's, nor for what came after it.
type Approval struct {
	Bundle string // digest
	Step   int
	At     time.Time
}

// Order is a person's for one Bundle and a time: to go no step further, or to take the canary out.
type Order struct {
	Bundle string // digest
	Abort  bool
	Until  time.Time
	// Why says the reason and whose it is.
	Why string
}

// Traffic is what the router has.
type Traffic struct {
	Knowledge Knowledge
	Weight    int
	Header    Header
	// Mixed says that it was told to one part of what moves traffic and not to another; Weight is the highest.
	Mixed bool
}

// Arrangement is what has to be in place: a function of State and Strategy alone.
type Arrangement struct {
	// Stable is what the workload has to be and Placed its marks.
	Stable v1alpha1.BundleRef
	Placed Placed
	// StableReplicas and CanaryReplicas are numbers of pods.
	StableReplicas, CanaryReplicas int32
	// Canary runs beside it, nil for nothing.
	Canary *v1alpha1.BundleRef
	// Weight and Header are the canary's traffic; Preview says that people can reach it besides.
	Weight  int
	Header  Header
	Preview bool
}

// Arrange puts an Arrangement in place, in this order: what has to grow, traffic, what shrinks or goes.
type Arrange struct {
	Arrangement
	// Regardless says to do it also when Record failed.
	Regardless bool
}

// Measure looks at the metrics with these names; Next is asked again with Observation.Looks.
type Measure struct {
	Names []string
	// Due is since when each of them is: it tells one look at a metric from the next.
	Due []time.Time
}

func (Arrange) effect() {}
func (Measure) effect() {}

// share is that percentage of the workload's size, rounded up.
func (o Observation) share(percent int) int32 {
	return int32((int64(o.Size)*int64(percent) + 99) / 100)
}

// size is how many pods the canary has to have: for the traffic it has, and for what the step is about to give it.
func (s State) size(c course, o Observation) int32 {
	size := max(o.share(s.Course.Weight), o.share(s.Course.Replicas), min(1, o.Size))
	if s.Course.Step < len(c.steps) {
		if next := c.steps[s.Course.Step].Weight; next != nil {
			size = max(size, o.share(*next))
		}
	}
	return size
}

// leaves says that the canary may only lose traffic.
func (s State) leaves() bool { return s.failed() || s.Course.Withdrawn || s.Course.Leaving }

// forsaken says that no pod of the canary is left to answer what it is sent, and that stable can take all of that.
func (s State) forsaken(c course, o Observation) bool {
	return c.routed && s.Course.Canary != nil && !s.Course.Promoting && !s.leaves() && o.Canary.Knowledge == Present && o.Canary.Available == 0 &&
		o.Workload.Knowledge == Present && o.Workload.Placed.Bundle == s.Stable.Digest && o.Workload.Available >= max(o.Size, 1)
}

// affordable is the weight, as far as the canary has the pods for it. Traffic that it has is not taken away when some get
// lost: whether they come back is for Judge. When all are, stable has it until they do.
func (s State) affordable(c course, o Observation) int {
	weight, able := s.Course.Weight, 100
	if o.Size > 0 {
		able = int(min(100*int64(o.Canary.Available)/int64(o.Size), 100))
	}
	if o.Canary.Knowledge != Present || !o.Canary.Current || o.Canary.Placed.Bundle != s.Course.Canary.Digest {
		able = 0
	}
	switch {
	case s.leaves() || o.share(weight) <= o.share(able):
		return weight
	case s.forsaken(c, o):
		return 0
	case !c.routed:
		return able
	case o.Traffic.Knowledge == Present:
		return min(weight, o.Traffic.Weight)
	}
	return weight // Arrange waits until traffic is known
}

// arrangement is false while there is no stable version: then the workload alone is the target.
func (s State) arrangement(c course, o Observation) (Arrangement, bool) {
	if s.Stable == nil {
		return Arrangement{}, false
	}
	a := Arrangement{Stable: *s.Stable, Placed: Placed{Bundle: s.Stable.Digest}, StableReplicas: o.Size}
	if s.failed() {
		a.Placed.Failed = s.Target.Digest
	}
	if s.Course.Canary == nil || s.leaves() && s.Course.Weight == 0 {
		return a, true
	}
	if c.ordinal {
		return s.byOrdinal(c, o, a), true
	}
	a.Canary, a.Weight = s.Course.Canary, s.affordable(c, o)
	switch {
	case s.leaves():
		a.CanaryReplicas = o.share(s.Course.Weight)
		return a, true
	case s.Course.Promoting:
		a.Stable, a.Placed = *s.Target, Placed{Bundle: s.Target.Digest}
	case c.shrinks:
		a.StableReplicas = o.Size - int32(int64(o.Size)*int64(a.Weight)/100)
	}
	a.CanaryReplicas, a.Preview = s.size(c, o), c.preview
	if !s.forsaken(c, o) {
		a.Header = s.Course.Header
	}
	return a, true
}

// Arranged is what has to be in place in state s after o was seen. It is false where Want says that instead: nothing runs,
// or ran, beside the workload.
func Arranged(s State, o Observation) (Arrangement, bool) {
	step := step{State: s, o: o}
	if !step.findWay() {
		return Arrangement{}, false
	}
	return s.arrangement(step.way, o)
}

// inPlace compares a with what is there. What is not known is not in place.
func (a Arrangement) inPlace(c course, o Observation) bool {
	switch {
	case c.ordinal:
		return a.partitioned(o.Workload)
	case o.Workload.Knowledge != Present || o.Workload.Placed != a.Placed || o.Workload.Wanted != a.StableReplicas:
		return false
	case c.routed && (o.Traffic.Knowledge != Present || o.Traffic.Weight != a.Weight || o.Traffic.Header != a.Header || o.Traffic.Mixed):
		return false
	case a.Canary == nil:
		return o.Canary.Knowledge == Absent
	}
	return o.Canary.Knowledge == Present && o.Canary.Placed.Bundle == a.Canary.Digest && o.Canary.Wanted == a.CanaryReplicas
}
