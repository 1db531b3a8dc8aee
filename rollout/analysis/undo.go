package analysis

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Undo is which of the last stable versions come back at once. The zero value is none.
type Undo struct {
	Revisions int
	Within    time.Duration
}

// MaxHistory bounds what is remembered of versions before.
const MaxHistory = 10

// undoes says that a target ran until lately and has never failed, as far as is remembered: its steps and its analysis are
// behind it. A strategy without them has nothing to skip.
func (s *step) undoes(asked v1alpha1.BundleRef) bool {
	if _, steps := s.o.Strategy.course(); !steps || s.Stable == nil {
		return false
	}
	nth := 0
	for _, past := range s.History {
		is := past.Bundle.Digest == asked.Digest
		if past.Failed && is {
			return false
		}
		if past.Failed {
			continue
		}
		if nth++; is {
			return nth <= s.o.Undo.Revisions && s.o.Now.Sub(past.Until.Time) < s.o.Undo.Within
		}
	}
	return false
}

// quick is way without its steps: all pods beside stable, then all traffic.
func (way course) quick() course {
	way.steps, way.background = []Step{{Weight: percent(100)}}, nil
	way.shrinks = !way.routed // where a router moves traffic, stable stays until it is not needed
	way.name += "+undo"
	return way
}

// outlive remembers stable when another Bundle becomes that.
func (s *step) outlive() {
	if s.Stable == nil || s.Stable.Digest == s.Target.Digest {
		return
	}
	s.History = slices.DeleteFunc(slices.Clone(s.History), func(past v1alpha1.PastBundle) bool {
		return past.Bundle.Digest == s.Target.Digest && !past.Failed
	})
	s.remember(*s.Stable, false)
}

// remember notes a Bundle first. One that has failed stays so.
func (s *step) remember(bundle v1alpha1.BundleRef, failed bool) {
	past := v1alpha1.PastBundle{Bundle: bundle, Until: metav1.Time{Time: s.now()}, Failed: failed}
	history := []v1alpha1.PastBundle{past}
	for _, other := range s.History {
		if other.Bundle.Digest == bundle.Digest {
			history[0].Failed = history[0].Failed || other.Failed
			continue
		}
		history = append(history, other)
	}
	s.History = history[:min(len(history), MaxHistory)]
}

// Length is how many steps a course of s has, at once or not; zero for the zero Strategy.
func (s Strategy) Length(undo bool) int {
	way, some := s.course()
	if some && undo {
		way = way.quick()
	}
	return len(way.steps)
}
