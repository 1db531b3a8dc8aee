package analysis

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Hook is somebody else who has a say on the way. What it does not answer is no: it waits, and blames nothing.
type Hook struct {
	Name     string
	Kind     HookKind
	Interval time.Duration // between calls that are answered no, and of a Gate
	// Reverts makes the yes of a Gate a Fail.
	Reverts bool
	// Asks tells what is asked from what was before, as with a Metric.
	Asks string
}

// HookKind says when a Hook is called and what its yes means.
type HookKind uint8

const (
	// Confirm is called when a step begins, and before the version becomes stable. Nothing goes on until it says yes.
	Confirm HookKind = iota
	// Load is called once the canary has the pods or the traffic that a step gave it, when all have confirmed the next one.
	// That begins, and is measured, once it says yes.
	Load
	// Gate is called all the time. Its yes takes the canary out, as when a person aborts; a person has to say how it goes on.
	Gate
)

// Reasons of what Hooks bring about.
const (
	// ReasonGate is that of a Verdict: Inconclusive, and a Fail where the Gate reverts.
	ReasonGate = "RollbackGate"
	// EventWaits is told when the first call of a Hook in a step is not answered yes.
	EventWaits = "RolloutWaits"
)

// Call asks the Hooks with these names; Next is asked again with Observation.Answers.
type Call struct{ Names []string }

func (Call) effect() {}

// Answer of a Hook. The zero value is no.
type Answer struct {
	Yes  bool
	Said string // why not, for people
}

// Called is what is remembered of a Hook: the last answer, of a Confirm or Load in the present step.
type Called struct {
	Name string
	Last time.Time // zero while it was not called
	Yes  bool
	Said string
}

func (h Hook) validate() error {
	switch {
	case h.Name == "":
		return errors.New("webhook: has no name")
	case h.Interval <= 0:
		return fmt.Errorf("webhook %q: interval must be positive", h.Name)
	case h.Reverts && h.Kind != Gate:
		return fmt.Errorf("webhook %q: only a RollbackGate reverts", h.Name)
	}
	return nil
}

func validateHooks(hooks []Hook) error {
	names := map[string]bool{}
	for _, h := range hooks {
		if err := h.validate(); err != nil {
			return err
		}
		if names[h.Name] {
			return fmt.Errorf("webhook %q: there are two of that name", h.Name)
		}
		names[h.Name] = true
	}
	return nil
}

// cleared says that all Hooks let the present step begin. Once the version becomes stable there is nothing to ask any more.
func (s *step) cleared() bool {
	return s.Course.Promoting || s.answered(Confirm) && (!s.owesLoad() || s.answered(Load))
}

// answered says that all Hooks of a kind have said yes.
func (s *step) answered(kind HookKind) bool {
	for i, h := range s.way.hooks {
		if h.Kind == kind && (i >= len(s.Course.Called) || !s.Course.Called[i].Yes) {
			return false
		}
	}
	return true
}

// owesLoad says that the step before gave the canary pods or traffic.
func (s *step) owesLoad() bool {
	if s.Course.Step == 0 || s.Course.Step >= len(s.way.steps) {
		return false
	}
	before := s.way.steps[s.Course.Step-1]
	return before.Weight != nil || before.Replicas != nil || before.Header != nil && *before.Header != Header{}
}

// forgetAnswers begins a step. What a Gate said stands.
func (s *step) forgetAnswers() {
	s.Course.Called = slices.Clone(s.Course.Called)
	for i, h := range s.way.hooks {
		if h.Kind != Gate && i < len(s.Course.Called) {
			s.Course.Called[i] = Called{Name: h.Name}
		}
	}
}

// calls are the Hooks to call now; next is when that will be the case for any.
func (s *step) calls() (names []string, next time.Time) {
	open := s.Phase == v1alpha1.PhaseProgressing || s.Phase == v1alpha1.PhasePaused
	if !open || s.Course.Canary == nil || s.leaves() {
		return nil, next
	}
	for i, h := range s.way.hooks {
		if !s.asks(h, i) {
			continue
		}
		at := s.Course.Since
		if i < len(s.Course.Called) && !s.Course.Called[i].Last.IsZero() {
			at = s.Course.Called[i].Last.Add(h.Interval)
		}
		if !at.After(s.o.Now) {
			names = append(names, h.Name)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return names, next
}

// asks says that a Hook has something to say now, whenever it is due.
func (s *step) asks(h Hook, i int) bool {
	open := s.Phase == v1alpha1.PhaseProgressing && !s.Course.Promoting && (i >= len(s.Course.Called) || !s.Course.Called[i].Yes)
	switch h.Kind {
	case Gate:
		return true
	case Load:
		return open && s.owesLoad() && s.answered(Confirm)
	default:
		return open
	}
}

// listen notes what Hooks said, and does what a Gate says.
func (s *step) listen() {
	if s.o.Answers == nil {
		return
	}
	due, _ := s.calls()
	called := make([]Called, len(s.way.hooks))
	copy(called, s.Course.Called)
	var gate *Hook
	for i, h := range s.way.hooks {
		called[i].Name = h.Name
		answer, is := s.o.Answers[h.Name]
		if !is || !slices.Contains(due, h.Name) {
			continue
		}
		if first := called[i].Last.IsZero(); first && !answer.Yes && h.Kind != Gate {
			s.tell(false, EventWaits, fmt.Sprintf("%s waits for webhook %s: %s", name(*s.Target), h.Name, answer.Said))
		}
		called[i] = Called{Name: h.Name, Last: s.now()}
		switch {
		case h.Kind != Gate:
			called[i].Yes, called[i].Said = answer.Yes, answer.Said
		case answer.Yes:
			gate = &h
		}
	}
	if len(due) > 0 {
		s.Course.Called = called
	}
	switch {
	case gate == nil:
	case gate.Reverts:
		s.fail(fail(ReasonGate, "webhook %s says to go back", gate.Name))
		s.withdraw()
	default:
		s.stop(Finding{Reason: ReasonGate, Message: fmt.Sprintf("webhook %s says to go back", gate.Name), Then: Rollback})
	}
}
