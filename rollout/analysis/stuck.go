package analysis

import "time"

// hindered is what a canary that is large enough comes to while what is asked for cannot be put in place: nothing until the
// deadline is over, and then that. Without such a reason it is what its metrics say.
func (s *step) hindered(metrics Finding, late bool) Finding {
	if s.o.Refusal == nil {
		if !s.Course.Hindered.IsZero() && s.arranged() {
			s.Course.Hindered = time.Time{}
		}
		return metrics
	}
	if s.Course.Hindered.IsZero() {
		s.Course.Hindered = s.now()
	}
	elapsed := s.o.Now.Sub(s.Course.Hindered)
	if late {
		elapsed = max(elapsed, s.o.deadline())
	}
	return Judge(s.o, elapsed)
}

// stuck says that the Rollout has paused because what it asks for could not be put in place, and that it still is not. It is
// tried again meanwhile.
func (s *step) stuck() bool {
	reason := s.Verdict.Reason
	return (reason == ReasonNotApplied || reason == ReasonMissing) && s.o.Refusal == nil && !s.arranged()
}
