package analysis_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// harbour is a cluster in which a canary runs beside stable. "good" and "good2" are well, "ill" is well except for its
// metrics, "crash" crashes. Its clock stands at epoch: other times move into the past.
type harbour struct {
	State analysis.State
	Asked string
	// Stable and Canary are workloads, by the Bundle that they have.
	Stable, Canary berth
	// Hulls are the pods of a StatefulSet, whose Stable is the whole; nothing runs beside it.
	Hulls  [berths]hull
	Weight int
	Header analysis.Header
	// Deaf says that metrics cannot be asked, Blind that the router cannot be read; for one run each.
	Deaf, Blind bool
	Approval    *analysis.Approval
	Order       *analysis.Order
	// Mute says that webhooks do not answer, Recall that a gate says yes; for one run each.
	Mute, Recall bool
	// Undoes says that versions come back at once.
	Undoes bool
	// Banned is the target that is known to have failed, and Ceiling the traffic that it had last.
	Banned  string
	Ceiling int
}

// berth is a workload: how many pods it wants, how many are new, how many available.
type berth struct {
	Placed                     analysis.Placed
	Wanted, Updated, Available int32
	Partition                  int32 // of a StatefulSet
}

const berths = 4

func (b berth) workload() analysis.Workload {
	if b.Placed.Bundle == "" {
		return analysis.Workload{Knowledge: analysis.Absent}
	}
	return analysis.Workload{
		Knowledge: analysis.Present, Placed: b.Placed, Current: true, Wanted: b.Wanted,
		Replicas: max(b.Updated, b.Available), Updated: b.Updated, Available: b.Available,
	}
}

// sail changes a workload, as the API server and then the Deployment's controller do.
func (b berth) sail(placed analysis.Placed, wanted int32) berth {
	if placed.Bundle != b.Placed.Bundle {
		b.Updated = 0
	}
	b.Placed, b.Wanted = placed, wanted
	b.Updated, b.Available = min(b.Updated, wanted), min(b.Available, wanted)
	return b
}

// ready lets all pods come that can.
func (b berth) ready() berth {
	if b.Placed.Bundle != "" && b.Placed.Bundle != "digest-crash" {
		b.Updated, b.Available = b.Wanted, b.Wanted
	}
	return b
}

func (h harbour) observe(strategy analysis.Strategy) analysis.Observation {
	o := analysis.Observation{
		Now: epoch, Target: ref(h.Asked), Deadline: deadline, Strategy: strategy, Size: berths,
		Workload: h.Stable.workload(), Canary: h.Canary.workload(), Approval: h.Approval, Order: h.Order,
		Traffic: analysis.Traffic{Knowledge: analysis.Present, Weight: h.Weight, Header: h.Header},
	}
	if h.Blind {
		o.Traffic = analysis.Traffic{}
	}
	if h.fleet() {
		o.Workload.Replicas, o.Workload.Partition, o.Traffic = berths, h.Stable.Partition, analysis.Traffic{Knowledge: analysis.Absent}
	}
	if h.Undoes {
		o.Undo = analysis.Undo{Revisions: 2, Within: time.Hour}
	}
	return o
}

func (h harbour) looks(names []string) map[string]analysis.Look {
	looks := map[string]analysis.Look{}
	for _, name := range names {
		value := 1.0
		if h.Canary.Placed.Bundle == "digest-ill" || h.fleet() && h.Stable.Placed.Bundle == "digest-ill" {
			value = 9
		}
		looks[name] = analysis.Look{At: epoch, Canary: []float64{value}}
		if h.Deaf {
			looks[name] = analysis.Look{At: epoch, Unavailable: "connection refused"}
		}
	}
	return looks
}

func (h harbour) pods() *analysis.Pods {
	if h.fleet() {
		return h.podsByOrdinal()
	}
	p := &analysis.Pods{New: pods("new", "ready"), Old: pods("old", "ready")}
	if h.Canary.Placed.Bundle == "digest-crash" || h.State.Stable == nil && h.Stable.Placed.Bundle == "digest-crash" {
		p.New = pods("new", "crash:3")
	}
	return p
}

// run is the loop in h. It fails when a promise is broken.
func (h harbour) run(strategy analysis.Strategy, f faults) (harbour, error) {
	o, state := h.observe(strategy), h.State
	for range 8 {
		next, effects := analysis.Next(state, o)
		if err := h.check(state, next, effects, o); err != nil {
			return h, err
		}
		again, recorded := false, true
		for _, effect := range effects {
			switch e := effect.(type) {
			case analysis.Record:
				if recorded = !f.recordFails; recorded {
					h.State = next
					h.note(next)
				}
				if f.killedAfterRecord {
					return h, nil
				}
			case analysis.Apply:
				if recorded || e.Regardless {
					h.Stable = h.Stable.sail(e.Placed, berths)
					if h.fleet() {
						h.Stable.Partition = 0
						h = h.count()
					}
					h.note(next)
				}
			case analysis.Arrange:
				if !recorded && !e.Regardless {
					return h, nil
				}
				if f.busy {
					o.Refusal, again = &analysis.Refusal{Message: "busy"}, true
					f.busy = false
					break
				}
				h.arrange(e.Arrangement, strategy)
				h.note(next)
				if f.killedAfterApply {
					return h, nil
				}
			case analysis.Evict:
				if err := h.evict(e.Pods); err != nil {
					return h, err
				}
			case analysis.Inspect:
				o.Pods, again = h.pods(), true
			case analysis.Measure:
				o.Looks, again = h.looks(e.Names), true
			case analysis.Call:
				o.Answers, again = h.answers(e.Names), true
			}
		}
		if !again {
			return h, nil
		}
		if state = next; !recorded {
			state = h.State
		}
	}
	return h, fmt.Errorf("the loop asks for the same again and again")
}

func (h *harbour) arrange(a analysis.Arrangement, strategy analysis.Strategy) {
	if ordinal(strategy) {
		h.moor(a)
		return
	}
	h.Stable = h.Stable.sail(a.Placed, a.StableReplicas)
	if a.Canary == nil {
		h.Canary = berth{}
	} else {
		h.Canary = h.Canary.sail(analysis.Placed{Bundle: a.Canary.Digest}, a.CanaryReplicas)
	}
	if routes(strategy) || h.Weight > 0 {
		h.Weight, h.Header = a.Weight, a.Header
	}
}

func routes(s analysis.Strategy) bool {
	return s.Rolling == nil && (s.Canary == nil || !s.Canary.Unrouted)
}

func (h *harbour) note(s analysis.State) {
	if s.Verdict != nil && s.Verdict.Outcome == v1alpha1.VerdictFail {
		if h.Banned != nameOf(s.Target) {
			h.Ceiling = h.traffic()
		}
		h.Banned = nameOf(s.Target)
		h.Ceiling = min(h.Ceiling, h.traffic())
	} else if nameOf(h.State.Target) != h.Banned {
		h.Banned = ""
	}
}

// traffic is what the canary gets, by the router or by its pods.
func (h harbour) traffic() int {
	if h.fleet() {
		others := slices.DeleteFunc(slices.Clone(h.Hulls[:]), func(one hull) bool { return one.Bundle == "digest-"+nameOf(h.State.Stable) })
		return 100 * len(others) / berths
	}
	if h.Canary.Placed.Bundle == "" {
		return 0
	}
	return max(h.Weight, int(100*h.Canary.Wanted/berths))
}

func (h harbour) check(before, after analysis.State, effects []analysis.Effect, o analysis.Observation) error {
	rouses, recordAt := false, -1
	for i, effect := range effects {
		switch e := effect.(type) {
		case analysis.WakeAt:
			rouses = true
		case analysis.Inspect, analysis.Measure, analysis.Call:
			rouses = true
		case analysis.Record:
			recordAt = i
		case analysis.Arrange:
			if recordAt < 0 && fmt.Sprint(before) != fmt.Sprint(after) {
				return fmt.Errorf("it is arranged before the record")
			}
			if err := h.allowed(after, e.Arrangement, o); err != nil {
				return err
			}
		case analysis.Apply:
			if e.Bundle.Name == h.Banned {
				return fmt.Errorf("%s has failed and is applied again", h.Banned)
			}
		}
	}
	was, is := nameOf(before.Stable), nameOf(after.Stable)
	switch {
	case after.Undo && (!h.Undoes || nameOf(after.Target) == "ill" || nameOf(after.Target) == h.Banned):
		return fmt.Errorf("%s comes back at once", nameOf(after.Target))
	case !after.Settled() && !rouses:
		return fmt.Errorf("nothing will wake it: %+v", after)
	case was != is && (is != nameOf(after.Target) || h.Stable.Placed.Bundle != after.Stable.Digest || h.Stable.Updated != berths):
		return fmt.Errorf("stable became %s, which is not in place", is)
	case is == "ill" && was != "" && was != is && !lost(o.Strategy, is) || is == "crash":
		return fmt.Errorf("stable became %s", is)
	case after.Verdict != nil && after.Verdict.Outcome == v1alpha1.VerdictFail && strings.HasPrefix(nameOf(after.Target), "good"):
		return fmt.Errorf("%s failed: %+v", nameOf(after.Target), after.Verdict)
	}
	return nil
}

// given is the weight that the steps before one have given: it may come back without another yes.
func given(s analysis.Strategy, step int) (weight int) {
	switch {
	case s.Canary == nil:
		return 0
	case step > len(s.Canary.Steps): // all is given in the end
		return 100
	}
	for _, one := range s.Canary.Steps[:step] {
		if one.Weight != nil {
			weight = *one.Weight
		}
	}
	return weight
}

// allowed says whether h may be arranged as a.
func (h harbour) allowed(s analysis.State, a analysis.Arrangement, o analysis.Observation) error {
	if ordinal(o.Strategy) {
		return h.moored(s, a)
	}
	canary := ""
	if a.Canary != nil {
		canary = a.Canary.Name
	}
	routed := routes(o.Strategy)
	rises := routed && a.Weight > h.Weight || !routed && a.CanaryReplicas > h.Canary.Wanted
	switch {
	case rises && unconfirmed(s) && (!routed || a.Weight > given(o.Strategy, s.Course.Step)):
		return fmt.Errorf("traffic rises to %d%% and nobody has confirmed it", a.Weight)
	case a.Stable.Name == h.Banned:
		return fmt.Errorf("%s has failed and becomes stable", h.Banned)
	case canary != "" && canary == h.Banned && (a.Weight > h.Ceiling || rises || a.Header != analysis.Header{}):
		return fmt.Errorf("%s has failed and gains traffic: %d%% after %d%%", canary, a.Weight, h.Ceiling)
	case routed && a.Weight > 0 && s.Phase == v1alpha1.PhaseProgressing && !s.Course.Promoting && !s.Course.Leaving && h.Canary.Available == 0 &&
		h.Stable.Placed.Bundle == a.Stable.Digest && h.Stable.Available >= berths && a.StableReplicas >= berths:
		return fmt.Errorf("%d%% of traffic goes to pods that are not there", a.Weight)
	case a.Weight > 0 && canary == "":
		return fmt.Errorf("traffic goes to nothing")
	case routed && a.Weight > h.Weight && int(h.Canary.Available)*100 < a.Weight*berths:
		return fmt.Errorf("%d%% of traffic for %d of %d pods", a.Weight, h.Canary.Available, berths)
	case canary != "" && h.Canary.Placed.Bundle != "" && a.Canary.Digest != h.Canary.Placed.Bundle && (h.Weight > 0 || h.Header != analysis.Header{}):
		return fmt.Errorf("a canary that has traffic is exchanged")
	case nameOf(s.Stable) != a.Stable.Name && (a.Stable.Name != nameOf(s.Target) || routed && h.Weight < 100):
		return fmt.Errorf("two versions are stable: %s and %s", nameOf(s.Stable), a.Stable.Name)
	case a.StableReplicas+a.CanaryReplicas < berths:
		return fmt.Errorf("%d and %d pods are fewer than %d", a.StableReplicas, a.CanaryReplicas, berths)
	}
	return nil
}

var watching = []analysis.Metric{
	{Name: "load", Range: &analysis.Range{Max: number(5)}, Interval: look, Count: 1},
	{Name: "depth", Range: &analysis.Range{Max: number(5)}, Interval: look, Count: 2, ConsecutiveErrorLimit: 1, OnInsufficientData: analysis.Rollback},
}

// courses are the strategies that are walked.
func courses() map[string]analysis.Strategy {
	at := func(n int) *int { return &n }
	all := map[string]analysis.Strategy{
		"canary": {Canary: &analysis.Canary{Steps: []analysis.Step{
			{Header: &analysis.Header{Name: "x", Value: "y"}}, {Weight: at(25)}, {Pause: &analysis.Halt{}}, {Analysis: watching[1:]},
		}, Analysis: watching[:1]}},
		"canary that shrinks stable": {Canary: &analysis.Canary{Steps: []analysis.Step{
			{Weight: at(50)}, {Analysis: watching[:1]},
		}, DynamicStableScale: true}},
		"canary by the share of pods": {Canary: &analysis.Canary{Steps: []analysis.Step{
			{Weight: at(25)}, {Analysis: watching[:1]},
		}, Unrouted: true}},
		"canary with webhooks": {Canary: &analysis.Canary{Steps: []analysis.Step{
			{Weight: at(50)}, {Analysis: watching[:1]},
		}, Hooks: hooks}},
		"blue-green": {BlueGreen: &analysis.BlueGreen{Before: watching[:1], After: watching[1:], ScaleDownDelay: look}},
		"batches":    {Rolling: &analysis.Batches{Batches: []analysis.Batch{{Percent: 25, Pause: &analysis.Halt{}}, {Percent: 50, Pause: &analysis.Halt{For: look}, Analysis: watching[:1]}}}},
	}
	maps.Copy(all, byOrdinals())
	return all
}

// shift lets d pass. What is long past is just past, and what only people read is left out, so that there is an end of states.
func (h harbour) shift(d time.Duration) harbour {
	s := h.State
	earlier := func(t *time.Time) { // now, a look ago, or longer than the deadline ago
		switch ago := epoch.Sub(t.Add(-d)); {
		case t.IsZero():
		case ago >= deadline:
			*t = epoch.Add(-deadline)
		case ago >= look:
			*t = epoch.Add(-look)
		default:
			*t = epoch
		}
	}
	s.Samples, s.StartedAt, s.Course.Trail = nil, time.Time{}, nil
	if s.Target != nil && s.Stable == nil {
		s.StartedAt = epoch.Add(-look)
	}
	s.History = slices.DeleteFunc(slices.Clone(s.History), func(past v1alpha1.PastBundle) bool { return !h.Undoes || past.Failed })
	for i := range s.History {
		s.History[i].Until.Time = epoch
	}
	earlier(&s.Course.Since)
	earlier(&s.Course.Lacks)
	s.Course.Called = slices.Clone(s.Course.Called)
	for i := range s.Course.Called {
		c := &s.Course.Called[i]
		if earlier(&c.Last); c.Yes {
			c.Last = time.Time{} // nobody asks any more
		} else if c.Last.Before(epoch.Add(-look)) && !c.Last.IsZero() {
			c.Last = epoch.Add(-look)
		}
		c.Said = ""
	}
	s.Course.Hindered = time.Time{} // TestWhatCannotBePutInPlacePauses tells of it; here it would multiply the states
	s.Course.Tallies, s.Course.Background = slices.Clone(s.Course.Tallies), slices.Clone(s.Course.Background)
	for _, tallies := range [][]analysis.Tally{s.Course.Tallies, s.Course.Background} {
		for i := range tallies {
			earlier(&tallies[i].Started)
			earlier(&tallies[i].Last)
			tallies[i].Passed, tallies[i].Errors = min(tallies[i].Passed, 2), min(tallies[i].Errors, 2)
			tallies[i].Said, tallies[i].Why = "", ""
		}
	}
	if s.Verdict != nil {
		s.Verdict = s.Verdict.DeepCopy()
		s.Verdict.At.Time, s.Verdict.Samples, s.Verdict.Message = epoch, nil, ""
		s.Verdict.Evidence = nil
	}
	h.State = s
	return h
}

func (h harbour) key() string {
	content, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	return string(content)
}

// weathers are all that can happen in a harbour.
func weathers() map[string]func(harbour) (harbour, faults) {
	all := map[string]func(harbour) (harbour, faults){
		"nothing":              func(h harbour) (harbour, faults) { return h, faults{} },
		"record fails":         func(h harbour) (harbour, faults) { return h, faults{recordFails: true} },
		"killed after record":  func(h harbour) (harbour, faults) { return h, faults{killedAfterRecord: true} },
		"killed after arrange": func(h harbour) (harbour, faults) { return h, faults{killedAfterApply: true} },
		"busy":                 func(h harbour) (harbour, faults) { return h, faults{busy: true} },
		"time":                 func(h harbour) (harbour, faults) { return h.shift(look), faults{} },
		"deadline":             func(h harbour) (harbour, faults) { return h.shift(deadline), faults{} },
		"pods come": func(h harbour) (harbour, faults) {
			return h.tide(), faults{}
		},
		"canary's pods die": func(h harbour) (harbour, faults) { h.Canary.Available = 0; return h, faults{} },
		"no metrics":        func(h harbour) (harbour, faults) { h.Deaf = true; return h.shift(look), faults{} },
		"no router":         func(h harbour) (harbour, faults) { h.Blind = true; return h, faults{} },
		"approved":          func(h harbour) (harbour, faults) { return h.approve(), faults{} },
		"held":              func(h harbour) (harbour, faults) { return h.order(false), faults{} },
		"aborted":           func(h harbour) (harbour, faults) { return h.order(true), faults{} },
	}
	for _, name := range []string{"good", "good2", "ill"} {
		all["ask for "+name] = func(h harbour) (harbour, faults) { h.Asked = name; return h, faults{} }
		all["ask for "+name+", killed"] = func(h harbour) (harbour, faults) { h.Asked = name; return h, faults{killedAfterRecord: true} }
	}
	return all
}

func (h harbour) approve() harbour {
	if h.State.Target != nil {
		h.Approval = &analysis.Approval{Bundle: h.State.Target.Digest, Step: h.State.Course.Step, At: epoch.Add(time.Second)}
	}
	return h
}

// order is a person's for the target.
func (h harbour) order(abort bool) harbour {
	if h.State.Target != nil {
		h.Order = &analysis.Order{Bundle: h.State.Target.Digest, Abort: abort, Until: epoch.Add(time.Second), Why: "INC-1, by robin"}
	}
	return h
}

// calm lets everything go well for a while: the one next state of h without trouble.
func (h harbour) calm(strategy analysis.Strategy) (harbour, error) {
	h = h.shift(look)
	h = h.tide()
	h.Deaf, h.Blind, h.Mute, h.Recall = false, false, false, false
	next, err := h.approve().run(strategy, faults{})
	return next.shift(0), err
}

// arrived says what is wrong with h in the end.
func (h harbour) arrived() error {
	s := h.State
	switch {
	case !s.Settled():
		return fmt.Errorf("still %s", s.Phase)
	case nameOf(s.Target) != h.Asked:
		return fmt.Errorf("asked for %s, the target is %s", h.Asked, nameOf(s.Target))
	case s.Phase == v1alpha1.PhaseHealthy && nameOf(s.Stable) != h.Asked, s.Phase == v1alpha1.PhaseFailed && strings.HasPrefix(h.Asked, "good"):
		return fmt.Errorf("%s while stable is %s", s.Phase, nameOf(s.Stable))
	case h.Canary != berth{} || h.Weight != 0 || h.Header != analysis.Header{}:
		return fmt.Errorf("a canary is left: %+v with %d%%", h.Canary, h.Weight)
	case s.Stable != nil && (h.Stable.Placed.Bundle != s.Stable.Digest || h.Stable.Available != berths):
		return fmt.Errorf("stable %s is not in place: %+v", s.Stable.Name, h.Stable)
	}
	return h.docked()
}

// TestEveryReachableCourse walks all states of a harbour, for each strategy, breadth first, and asks in each whether the
// promises hold and whether the Rollout comes to its end once nothing disturbs it any more.
func TestEveryReachableCourse(t *testing.T) {
	if err := firstPasses(); err != nil {
		t.Error(err)
	}
	for name, strategy := range courses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := strategy.Validate(); err != nil {
				t.Fatal(err)
			}
			walk(t, strategy)
		})
	}
}

type voyage struct {
	before, event string
	harbour       harbour
}

func walk(t *testing.T, strategy analysis.Strategy) {
	walkFrom(t, strategy, false)
}

func walkFrom(t *testing.T, strategy analysis.Strategy, undoes bool) {
	stable := bundle("good")
	start := harbour{
		State: analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable},
		Asked: "good", Stable: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths}, Undoes: undoes,
	}.shift(0)
	if ordinal(strategy) {
		for i := range start.Hulls {
			start.Hulls[i] = hull{"digest-good", true}
		}
	}
	seen := map[string]voyage{start.key(): {harbour: start}}
	queue, happens, home := []string{start.key()}, weathers(), map[string]bool{}
	if ordinal(strategy) {
		maps.Copy(happens, swells())
		maps.DeleteFunc(happens, func(event string, _ func(harbour) (harbour, faults)) bool {
			return strings.HasSuffix(event, ", killed") || lost(strategy, strings.TrimPrefix(event, "ask for "))
		})
	}
	if strategy.Canary != nil && len(strategy.Canary.Hooks) > 0 {
		happens["nobody answers"] = func(h harbour) (harbour, faults) { h.Mute = true; return h.shift(look), faults{} }
		happens["called back"] = func(h harbour) (harbour, faults) { h.Recall = true; return h.shift(look), faults{} }
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range happens {
			if !yield(name) {
				return
			}
		}
	})
	story := func(key string) (text string) {
		for key != start.key() {
			text = seen[key].event + "; " + text
			key = seen[key].before
		}
		return text
	}
	for len(queue) > 0 {
		key := queue[0]
		queue = queue[1:]
		here := seen[key].harbour
		if err := comesHome(here, strategy, home); err != nil {
			t.Fatalf("%s: %v\n%s", story(key), err, key)
		}
		for _, event := range names {
			changed, f := happens[event](here)
			next, err := changed.run(strategy, f)
			if err != nil {
				t.Fatalf("%s%s: %v\n%s", story(key), event, err, next.key())
			}
			next.Approval, next.Order, next.Deaf, next.Blind, next.Mute, next.Recall = nil, nil, false, false, false, false
			next = next.shift(0)
			if to := next.key(); seen[to].harbour.Asked == "" {
				seen[to] = voyage{key, event, next}
				queue = append(queue, to)
			}
		}
	}
	t.Logf("%d states", len(seen))
	reached := map[string]bool{"failed": false, "passed": false, "all traffic": false, "withdrawn": strategy.Canary == nil || strategy.Canary.DynamicStableScale || strategy.Canary.Unrouted, "newer in the middle": false, "promoting": ordinal(strategy)}
	for _, v := range seen {
		s := v.harbour.State
		for what, is := range map[string]bool{
			"failed": s.Phase == v1alpha1.PhaseFailed, "passed": nameOf(s.Stable) == "good2" && s.Phase == v1alpha1.PhaseHealthy,
			"all traffic": v.harbour.traffic() == 100, "withdrawn": s.Course.Withdrawn, "newer in the middle": s.Course.Leaving && v.harbour.traffic() > 0,
			"promoting": s.Course.Promoting,
		} {
			reached[what] = reached[what] || is
		}
	}
	for what, is := range reached {
		if !is {
			t.Errorf("no state of this walk is %q: it does not show what it should", what)
		}
	}
}

// comesHome follows the calm from h to its end; home are the states of which that is known.
func comesHome(h harbour, strategy analysis.Strategy, home map[string]bool) error {
	var path []string
	for range 60 {
		key := h.key()
		if home[key] {
			break
		}
		path = append(path, key)
		next, err := h.calm(strategy)
		if err != nil {
			return fmt.Errorf("in the calm: %w", err)
		}
		if next.Approval = nil; next.key() == key {
			if err := h.arrived(); err != nil {
				return err
			}
			break
		}
		h = next
		if len(path) == 60 {
			return fmt.Errorf("no end in sight: %s", key)
		}
	}
	for _, key := range path {
		home[key] = true
	}
	return nil
}
