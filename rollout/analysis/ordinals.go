package analysis

// Evict deletes pods of a version that is given up, which are not ready and would keep the workload from replacing them:
// a StatefulSet waits for each pod before it goes on to the next, also for one that never becomes ready.
type Evict struct{ Pods []string }

func (Evict) effect() {}

// byOrdinal is where the workload itself takes the new version in, from the highest ordinal down.
func (s State) byOrdinal(c course, o Observation, a Arrangement) Arrangement {
	a.Canary, a.Weight, a.Placed = s.Course.Canary, s.Course.Weight, Placed{Bundle: s.Course.Canary.Digest}
	a.CanaryReplicas = s.size(c, o)
	a.StableReplicas = o.Size - a.CanaryReplicas
	return a
}

// Partition is how many pods keep the version before while a workload takes the new one in itself: those with the lowest
// ordinals.
func (a Arrangement) Partition() int32 {
	if a.Canary == nil {
		return 0
	}
	return a.StableReplicas
}

// partitioned compares a with the one workload that there is by ordinal.
func (a Arrangement) partitioned(w Workload) bool {
	return w.Knowledge == Present && w.Placed == a.Placed && w.Partition == a.Partition() && w.Wanted == a.StableReplicas+a.CanaryReplicas
}

// taken says that the pods that the target is given are its own by now, and that all pods are available.
func (s *step) taken() bool {
	w := s.o.Workload
	return w.Placed.Bundle == s.Target.Digest && w.Wanted == s.o.Size && w.Partition == s.o.Size-s.size(s.way, s.o) && w.complete()
}

// Returned says that every pod of a workload is of the Bundle that it has.
func (w Workload) Returned() bool {
	return w.Knowledge == Present && w.Current && w.Partition == 0 && w.Updated >= w.Replicas
}

// returned says that no pod is left of what a workload took in by ordinal.
func (s *step) returned() bool {
	return s.o.Workload.Returned() && s.o.Workload.Placed.Bundle == s.Stable.Digest
}

// unblock finds the pods that are in the way of a version that takes all pods: back to stable, or the first to pass. What
// stands in their place was never found well, so nothing is lost with them.
func (s *step) unblock() {
	w := s.o.Workload
	goes := s.Stable != nil && s.leaves() && w.Placed.Bundle == s.Stable.Digest ||
		s.Stable == nil && s.Target != nil && w.Placed.Bundle == s.Target.Digest
	if !s.ordinal() || !goes || w.Knowledge != Present || !w.Current || w.Returned() {
		return
	}
	if s.o.Pods == nil {
		s.inspect = true
		return
	}
	for _, pod := range s.o.Pods.Old {
		if !pod.Ready {
			s.blocking = append(s.blocking, pod.Name)
		}
	}
}

func (s *step) ordinal() bool { return s.o.Strategy.Rolling != nil && s.o.Strategy.Rolling.Ordinal }

// evictions are what follows from unblock.
func (s *step) evictions() []Effect {
	if len(s.blocking) == 0 {
		return nil
	}
	return []Effect{Evict{Pods: s.blocking}}
}
