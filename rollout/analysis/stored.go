package analysis

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// courseFrom reads what into wrote.
func courseFrom(stored *v1alpha1.RolloutCourse) Course {
	if stored == nil {
		return Course{}
	}
	return Course{
		Canary: stored.Canary.DeepCopy(), Way: stored.Strategy, Step: int(stored.Step), Since: timeFrom(stored.Since),
		Weight: int(stored.Weight), Replicas: int(stored.Replicas), Header: headerFrom(stored.Header), Lacks: timeFrom(stored.Lacks), Hindered: timeFrom(stored.Hindered),
		Promoting: stored.Promoting, Leaving: stored.Leaving, Withdrawn: stored.Withdrawn,
		Tallies: talliesFrom(stored.Tallies), Background: talliesFrom(stored.Background), Called: calledFrom(stored.Called),
		Trail: slices.Clone(stored.Trail),
	}
}

// into is nil for no course.
func (c Course) into() *v1alpha1.RolloutCourse {
	if reflect.DeepEqual(c, Course{}) {
		return nil
	}
	stored := &v1alpha1.RolloutCourse{
		Canary: c.Canary.DeepCopy(), Strategy: c.Way, Step: int32(c.Step), Since: timeInto(c.Since),
		Weight: int32(c.Weight), Replicas: int32(c.Replicas), Lacks: timeInto(c.Lacks), Hindered: timeInto(c.Hindered),
		Promoting: c.Promoting, Leaving: c.Leaving, Withdrawn: c.Withdrawn,
		Tallies: talliesInto(c.Tallies), Background: talliesInto(c.Background), Called: calledInto(c.Called),
		Trail: slices.Clone(c.Trail),
	}
	if c.Header != (Header{}) {
		stored.Header = &v1alpha1.RolloutHeader{Name: c.Header.Name, Value: c.Header.Value}
	}
	return stored
}

func headerFrom(stored *v1alpha1.RolloutHeader) Header {
	if stored == nil {
		return Header{}
	}
	return Header{Name: stored.Name, Value: stored.Value}
}

func timeFrom(stored *metav1.Time) time.Time {
	if stored == nil {
		return time.Time{}
	}
	return stored.Time
}

func timeInto(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}

// talliesFrom starts a metric anew whose tally cannot be read: that gives it no evidence, for nor against.
func talliesFrom(stored []v1alpha1.MetricTally) (all []Tally) {
	for _, one := range stored {
		var t Tally
		if json.Unmarshal([]byte(one.State), &t) != nil {
			t = Tally{}
		}
		all = append(all, t)
	}
	return all
}

func talliesInto(all []Tally) (stored []v1alpha1.MetricTally) {
	for _, t := range all {
		state, err := json.Marshal(t)
		if err != nil { // a number without an end, which no count gives
			state = []byte("{}")
		}
		stored = append(stored, v1alpha1.MetricTally{Said: t.Said, State: string(state)})
	}
	return stored
}

func calledFrom(stored []v1alpha1.HookAnswer) (all []Called) {
	for _, one := range stored {
		all = append(all, Called{Name: one.Name, Last: timeFrom(one.Last), Yes: one.Yes, Said: one.Said})
	}
	return all
}

func calledInto(all []Called) (stored []v1alpha1.HookAnswer) {
	for _, one := range all {
		stored = append(stored, v1alpha1.HookAnswer{Name: one.Name, Last: timeInto(one.Last), Yes: one.Yes, Said: one.Said})
	}
	return stored
}
