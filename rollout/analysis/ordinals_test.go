package analysis_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// hull is a pod of a StatefulSet: the Bundle whose template it is of.
type hull struct {
	Bundle string
	Ready  bool
}

func ordinal(s analysis.Strategy) bool { return s.Rolling != nil && s.Rolling.Ordinal }

// fleet says whether h has a StatefulSet.
func (h harbour) fleet() bool { return h.Hulls[0].Bundle != "" }

// count keeps what a StatefulSet says of its pods.
func (h harbour) count() harbour {
	h.Stable.Updated, h.Stable.Available = 0, 0
	for _, one := range h.Hulls {
		if one.Bundle == h.Stable.Placed.Bundle {
			h.Stable.Updated++
		}
		if one.Ready {
			h.Stable.Available++
		}
	}
	return h
}

// tide lets all pods come that can.
func (h harbour) tide() harbour {
	if !h.fleet() {
		h.Stable, h.Canary = h.Stable.ready(), h.Canary.ready()
		return h
	}
	for {
		next := h.ebb()
		if next.Hulls == h.Hulls && next.Stable == h.Stable {
			return h
		}
		h = next
	}
}

// ebb is one step of a StatefulSet's controller that keeps the order: it waits for each pod, whichever version it is of.
func (h harbour) ebb() harbour {
	for i := range h.Hulls {
		h.Hulls[i].Ready = h.Hulls[i].Bundle != "digest-crash"
		if !h.Hulls[i].Ready {
			return h.count()
		}
	}
	for i := len(h.Hulls) - 1; i >= int(h.Stable.Partition); i-- {
		if h.Hulls[i].Bundle != h.Stable.Placed.Bundle {
			h.Hulls[i] = hull{Bundle: h.Stable.Placed.Bundle}
			break
		}
	}
	return h.count()
}

// moor is Arrange for a StatefulSet.
func (h *harbour) moor(a analysis.Arrangement) {
	h.Stable.Placed, h.Stable.Wanted, h.Stable.Partition = a.Placed, a.StableReplicas+a.CanaryReplicas, a.Partition()
	*h = h.count()
}

// evict deletes pods; the controller makes them anew.
func (h *harbour) evict(pods []string) error {
	for _, name := range pods {
		i := slices.IndexFunc(h.podsByOrdinal().Old, func(p analysis.Pod) bool { return p.Name == name })
		if i < 0 {
			return fmt.Errorf("pod %s is of the version that is wanted, and is evicted", name)
		}
		one := &h.Hulls[name[len(name)-1]-'0']
		if one.Ready || one.Bundle == "digest-"+nameOf(h.State.Stable) {
			return fmt.Errorf("pod %s is evicted: %+v", name, *one)
		}
		*one = hull{Bundle: h.Stable.Placed.Bundle}
	}
	*h = h.count()
	return nil
}

func (h harbour) podsByOrdinal() *analysis.Pods {
	p := &analysis.Pods{}
	for i, one := range h.Hulls {
		word := "young"
		switch {
		case one.Ready:
			word = "ready"
		case one.Bundle == "digest-crash":
			word = "crash:3"
		}
		seen := pod(fmt.Sprintf("web-%d", i), word)
		if one.Bundle == h.Stable.Placed.Bundle {
			p.New = append(p.New, seen)
		} else {
			p.Old = append(p.Old, seen)
		}
	}
	return p
}

// moored says whether a StatefulSet may be arranged as a.
func (h harbour) moored(s analysis.State, a analysis.Arrangement) error {
	canary := nameOf(a.Canary)
	stable := "digest-" + nameOf(s.Stable)
	others := 0
	for _, one := range h.Hulls {
		if one.Bundle != stable && one.Bundle != "digest-"+canary {
			others++
		}
	}
	switch {
	case a.Stable != *s.Stable:
		return fmt.Errorf("%s is arranged as stable, which is %s", a.Stable.Name, nameOf(s.Stable))
	case a.StableReplicas+a.CanaryReplicas != berths:
		return fmt.Errorf("%d and %d pods", a.StableReplicas, a.CanaryReplicas)
	case canary == "" && (a.Placed.Bundle != stable || a.Partition() != 0):
		return fmt.Errorf("%+v keeps pods from stable", a)
	case canary != "" && (canary == h.Banned || canary != nameOf(s.Target) || a.Placed.Bundle != "digest-"+canary):
		return fmt.Errorf("%s has failed, or is not wanted any more, and takes pods", canary)
	case canary != "" && others > 0:
		return fmt.Errorf("there are pods of three versions: %+v", h.Hulls)
	case canary != "" && int(a.Partition()) > int(h.Stable.Partition) && h.Stable.Placed == a.Placed:
		return fmt.Errorf("pods go back to stable while %s comes in", canary)
	}
	return nil
}

// byOrdinals are strategies of StatefulSets that are walked.
func byOrdinals() map[string]analysis.Strategy {
	return map[string]analysis.Strategy{
		"at once by ordinal": {Rolling: &analysis.Batches{Ordinal: true}},
		"batches by ordinal": {Rolling: &analysis.Batches{Ordinal: true, Batches: []analysis.Batch{
			{Percent: 50, Pause: &analysis.Halt{}, Analysis: watching[:1]},
		}}},
	}
}

// swells are what can happen to a StatefulSet besides.
func swells() map[string]func(harbour) (harbour, faults) {
	return map[string]func(harbour) (harbour, faults){
		"one pod": func(h harbour) (harbour, faults) { return h.ebb(), faults{} },
		"the last pod is not ready": func(h harbour) (harbour, faults) {
			h.Hulls[berths-1].Ready = false
			return h.count(), faults{}
		},
		"ask for crash": func(h harbour) (harbour, faults) { h.Asked = "crash"; return h, faults{} },
	}
}

// docked says what is wrong with a StatefulSet in the end.
func (h harbour) docked() error {
	if s := h.State; h.fleet() && (h.Stable.Updated != berths || h.Stable.Partition != 0 || s.Course.Canary != nil) {
		return fmt.Errorf("pods of another version are left: %+v, %+v", h.Hulls, h.Stable)
	}
	return nil
}

// lost says that a version that is ill passed by metrics, which a strategy without metrics cannot know.
func lost(strategy analysis.Strategy, is string) bool {
	return is == "ill" && strategy.Rolling != nil && len(strategy.Rolling.Batches) == 0
}

// firstPasses says that a StatefulSet whose first version never came up takes in the second one.
func firstPasses() error {
	first, second := bundle("crash"), bundle("good")
	strategy := analysis.Strategy{Rolling: &analysis.Batches{Ordinal: true}}
	h := harbour{Asked: "crash", State: analysis.State{Phase: v1alpha1.PhaseFailed, Target: &first, Verdict: &v1alpha1.Verdict{
		Outcome: v1alpha1.VerdictFail, Bundle: first.Digest,
	}}}
	h.Stable = berth{Placed: analysis.Placed{Bundle: first.Digest}, Wanted: berths}
	for i := range h.Hulls {
		h.Hulls[i] = hull{Bundle: first.Digest}
	}
	h.Asked, h.Banned = second.Name, first.Name
	for range 3 * berths {
		var err error
		if h, err = h.count().run(strategy, faults{}); err != nil {
			return err
		}
		h = h.tide()
	}
	if nameOf(h.State.Stable) != "good" || h.docked() != nil {
		return fmt.Errorf("%s: %+v", strings.TrimSpace(nameOf(h.State.Stable)), h)
	}
	return nil
}
