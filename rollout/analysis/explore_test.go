package analysis_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// world is a small cluster with one Rollout. "good" gets available, "crash" crashes, "pull" gets available once the
// registry is up, "bad" is refused by the API server. All its fields are comparable: it is its own key.
type world struct {
	// What the API server has.
	phase          v1alpha1.RolloutPhase
	stable, target string
	verdict        string // outcome
	reason         string
	elapsed        time.Duration // since StartedAt
	asked          string
	placed         analysis.Placed
	exists         bool
	// What else is the case.
	registryUp, dependencyDown, unreadable bool
	// banned is the target that is known to have failed, also when only the workload says so.
	banned string
}

var epoch = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

const (
	deadline = 100 * time.Second
	look     = 10 * time.Second // a tenth of it
)

func ref(name string) *v1alpha1.BundleRef {
	if name == "" {
		return nil
	}
	b := bundle(name)
	return &b
}

func nameOf(b *v1alpha1.BundleRef) string {
	if b == nil {
		return ""
	}
	return b.Name
}

func (w world) state() analysis.State {
	s := analysis.State{Phase: w.phase, Stable: ref(w.stable), Target: ref(w.target)}
	if s.Target != nil {
		s.StartedAt = epoch.Add(-w.elapsed)
	}
	if w.verdict != "" {
		s.Verdict = &v1alpha1.Verdict{Outcome: w.verdict, Reason: w.reason, Bundle: s.Target.Digest, SetDigest: s.Target.SetDigest}
	}
	return s
}

func (w world) with(s analysis.State) world {
	w.phase, w.stable, w.target, w.verdict, w.reason, w.elapsed = s.Phase, nameOf(s.Stable), nameOf(s.Target), "", "", 0
	if s.Target != nil {
		w.elapsed = min(max(epoch.Sub(s.StartedAt), 0), deadline)
	}
	if s.Verdict != nil {
		w.verdict, w.reason = s.Verdict.Outcome, s.Verdict.Reason
	}
	return w
}

// serves says whether all pods of the placed Bundle get available.
func (w world) serves() bool {
	runs := map[string]bool{"digest-good": true, "digest-good2": true, "digest-pull": w.registryUp}
	return runs[w.placed.Bundle] && !w.dependencyDown
}

func (w world) observe() analysis.Observation {
	o := analysis.Observation{Now: epoch, Target: ref(w.asked), Deadline: deadline}
	switch {
	case w.unreadable:
		o.Workload = analysis.Workload{Why: "timeout"}
	case !w.exists:
		o.Workload = analysis.Workload{Knowledge: analysis.Absent}
	case w.serves():
		o.Workload = analysis.Workload{Knowledge: analysis.Present, Placed: w.placed, Current: true, Wanted: 2, Replicas: 2, Updated: 2, Available: 2}
	default:
		o.Workload = analysis.Workload{Knowledge: analysis.Present, Placed: w.placed, Current: true, Wanted: 2, Replicas: 3, Updated: 1, Available: 2}
	}
	return o
}

func (w world) pods() *analysis.Pods {
	newest, old := "crash:3", "ready"
	if w.placed.Bundle == "digest-pull" && !w.registryUp {
		newest = "ImagePullBackOff"
	}
	if w.dependencyDown {
		old = "stuck"
	}
	return &analysis.Pods{New: pods("new", newest), Old: pods("old", old)}
}

// faults of one run of the loop.
type faults struct {
	recordFails, killedAfterRecord, killedAfterApply, busy bool
}

// run is the loop in w. It fails when a promise of the package is broken.
func (w world) run(f faults) (world, error) {
	o, state := w.observe(), w.state()
	for range 6 {
		next, effects := analysis.Next(state, o)
		if err := w.check(state, next, effects, o); err != nil {
			return w, err
		}
		again, recorded := false, true
		for _, effect := range effects {
			switch e := effect.(type) {
			case analysis.Record:
				recorded = !f.recordFails
				if recorded {
					w = w.with(next)
					w.note(next)
				}
				if f.killedAfterRecord {
					return w, nil
				}
			case analysis.Apply:
				if !recorded && !e.Regardless {
					return w, nil
				}
				if e.Bundle.Name == w.banned {
					return w, fmt.Errorf("%s has failed and is applied again", w.banned)
				}
				switch {
				case f.busy:
					o.Refusal, again = &analysis.Refusal{Message: "busy"}, true
				case e.Bundle.Name == "bad":
					o.Refusal, again = &analysis.Refusal{Invalid: true, Message: "invalid"}, true
				default:
					w.exists, w.placed = true, e.Placed
					w.note(next)
					if f.killedAfterApply {
						return w, nil
					}
				}
			case analysis.Inspect:
				o.Pods, again = w.pods(), true
			}
		}
		if !again {
			return w, nil
		}
		state = next
		if !recorded {
			state = w.state()
		}
	}
	return w, fmt.Errorf("the loop asks for the same again and again")
}

// note remembers what the cluster knows to have failed, until another target stands in the record.
func (w *world) note(s analysis.State) {
	if s.Verdict != nil && s.Verdict.Outcome == v1alpha1.VerdictFail {
		w.banned = nameOf(s.Target)
	} else if w.target != w.banned {
		w.banned = ""
	}
}

// stripped has a workload without marks. A Fail whose record got lost is not known any more then.
func (w world) stripped() world {
	w.placed = analysis.Placed{}
	if w.verdict != v1alpha1.VerdictFail {
		w.banned = ""
	}
	return w
}

// check holds one step against the promises.
func (w world) check(before, after analysis.State, effects []analysis.Effect, o analysis.Observation) error {
	waits, inspects, refused := false, false, o.Refusal != nil
	recordAt, applyAt := -1, -1
	for i, effect := range effects {
		switch effect.(type) {
		case analysis.WakeAt:
			waits = true
		case analysis.Inspect:
			inspects = true
		case analysis.Record:
			recordAt = i
		case analysis.Apply:
			applyAt = i
		}
	}
	_, want, some := after.Want()
	switch {
	case (!after.Settled() || some && o.Workload.Placed != want) && !waits && !inspects:
		return fmt.Errorf("nothing will wake it: %+v", after)
	case inspects && o.Pods != nil:
		return fmt.Errorf("it looks at pods that it has seen")
	case nameOf(before.Stable) != nameOf(after.Stable) && nameOf(after.Stable) != nameOf(after.Target):
		return fmt.Errorf("stable became %s while the target is %s", nameOf(after.Stable), nameOf(after.Target))
	case nameOf(before.Stable) != nameOf(after.Stable) && !w.serves():
		return fmt.Errorf("stable became %s, which does not serve", nameOf(after.Stable))
	case recordAt >= 0 && applyAt >= 0 && applyAt < recordAt:
		return fmt.Errorf("traffic moved before the record")
	case after.Verdict != nil && after.Verdict.Outcome == v1alpha1.VerdictFail && after.Stable != nil &&
		(before.Verdict == nil || before.Verdict.Outcome != v1alpha1.VerdictFail) && applyAt < 0 && o.Workload.Placed != want && !refused:
		return fmt.Errorf("it failed and traffic does not return")
	}
	return nil
}

// events are all that can happen in a world.
func events() map[string]func(world) (world, faults) {
	set := map[string]func(world) (world, faults){
		"nothing":             func(w world) (world, faults) { return w, faults{} },
		"record fails":        func(w world) (world, faults) { return w, faults{recordFails: true} },
		"killed after record": func(w world) (world, faults) { return w, faults{killedAfterRecord: true} },
		"killed after apply":  func(w world) (world, faults) { return w, faults{killedAfterApply: true} },
		"busy":                func(w world) (world, faults) { return w, faults{busy: true} },
		"busy, record fails":  func(w world) (world, faults) { return w, faults{busy: true, recordFails: true} },
		"deleted":             func(w world) (world, faults) { w.exists = false; return w.stripped(), faults{} },
		"marks stripped":      func(w world) (world, faults) { return w.stripped(), faults{} },
		"registry":            func(w world) (world, faults) { w.registryUp = !w.registryUp; return w, faults{} },
		"dependency":          func(w world) (world, faults) { w.dependencyDown = !w.dependencyDown; return w, faults{} },
		"unreadable":          func(w world) (world, faults) { w.unreadable = !w.unreadable; return w, faults{} },
		"time":                func(w world) (world, faults) { w.elapsed = max(w.elapsed, look); return w, faults{} },
		"deadline":            func(w world) (world, faults) { w.elapsed = deadline; return w, faults{} },
	}
	for _, name := range bundles() {
		set["ask for "+name] = func(w world) (world, faults) { w.asked = name; return w, faults{} }
		set["ask for "+name+", record fails"] = func(w world) (world, faults) { w.asked = name; return w, faults{recordFails: true} }
		set["ask for "+name+", killed"] = func(w world) (world, faults) { w.asked = name; return w, faults{killedAfterRecord: true} }
	}
	return set
}

func bundles() []string { return []string{"good", "good2", "crash", "pull", "bad"} }

// TestEveryReachableState walks all states of world, breadth first, and asks in each whether the promises hold and
// whether the Rollout comes to its end once nothing disturbs it any more.
func TestEveryReachableState(t *testing.T) {
	from := map[world]struct {
		world world
		event string
	}{}
	var start world
	queue, happens := []world{start}, events()
	from[start] = struct {
		world world
		event string
	}{}
	story := func(w world) string {
		text := ""
		for w != start {
			step := from[w]
			text = step.event + "; " + text
			w = step.world
		}
		return text
	}
	steps := 0
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		if err := settles(w); err != nil {
			t.Fatalf("%s: %v\n%+v", story(w), err, w)
		}
		for event, change := range happens {
			changed, f := change(w)
			next, err := changed.run(f)
			if err != nil {
				t.Fatalf("%s%s: %v\n%+v", story(w), event, err, next)
			}
			steps++
			if _, seen := from[next]; !seen {
				from[next] = struct {
					world world
					event string
				}{w, event}
				queue = append(queue, next)
			}
		}
	}
	t.Logf("%d states, %d steps", len(from), steps)
}

// settles lets time pass in a world without trouble.
func settles(w world) error {
	w.registryUp, w.dependencyDown, w.unreadable = true, false, false
	var err error
	for range 4 {
		w.elapsed = deadline
		if w, err = w.run(faults{}); err != nil {
			return err
		}
	}
	asked := w.asked
	_, want, some := w.state().Want()
	switch {
	case asked == "":
		return nil
	case !w.state().Settled():
		return fmt.Errorf("still %s in the end", w.phase)
	case some && w.placed != want:
		return fmt.Errorf("%v is in place, not %v", w.placed, want)
	case w.target != asked || w.phase == v1alpha1.PhaseHealthy && (w.stable != asked || asked == "crash" || asked == "bad"):
		return fmt.Errorf("asked for %s; %s is %s, stable is %s", asked, w.target, w.phase, w.stable)
	case w.phase != v1alpha1.PhaseHealthy && w.phase != v1alpha1.PhaseFailed:
		return fmt.Errorf("%s ended as %s", asked, w.phase)
	}
	return nil
}

// FuzzNext runs random worlds: each byte is an event. The property is that a
// Fail never leads to applying the failed Bundle again, nor breaks another promise.
func FuzzNext(f *testing.F) {
	all := events()
	var names []string
	for _, name := range append(bundles(), "nothing") {
		for event := range all {
			if event == "ask for "+name || event == name {
				names = append(names, event)
			}
		}
	}
	names = append(names, "record fails", "killed after record", "killed after apply", "busy", "deleted", "marks stripped",
		"registry", "dependency", "unreadable", "time", "deadline", "ask for crash, record fails", "ask for good, killed")
	f.Add([]byte{0, 2, 16, 16, 0})
	f.Add([]byte{2, 16, 6, 9, 0, 2})
	f.Fuzz(func(t *testing.T, script []byte) {
		var w world
		for i, b := range script {
			changed, faults := all[names[int(b)%len(names)]](w)
			var err error
			if w, err = changed.run(faults); err != nil {
				t.Fatalf("event %d: %v\n%+v", i, err, w)
			}
		}
	})
}
