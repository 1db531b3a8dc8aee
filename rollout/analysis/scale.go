package analysis

// EventKept says that a strategy that makes stable smaller does not.
const EventKept = "StableKeepsItsSize"

// keepsScale says that an autoscaler's number is left alone. To refuse the strategy instead would leave a canary that has
// traffic in the middle of the way when the autoscaler comes later, and what is lost are only the pods that would be saved.
func (s *step) keepsScale() {
	if c := s.o.Strategy.Canary; c != nil && c.DynamicStableScale && s.o.Scaled {
		s.tell(true, EventKept, "dynamicStableScale has no effect: an autoscaler says how many pods the workload has "+
			"(give spec.replicas in Git and take the autoscaler away, or take dynamicStableScale out)")
	}
}
