package progressive

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const (
	// everyWay has a step of each kind.
	everyWay = `{canary: {progressDeadline: 1m, steps: [{header: {name: ` + testers + `, value: "yes"}}, {pause: {for: 3s}}, {weight: 1}, {pause: {for: 3s}}, {weight: 20}, {pause: {for: 3s}},
      {weight: 50}, {pause: {for: 6s}}, {header: {}}, {replicas: 100}, {weight: 80}, {pause: {for: 3s}}]}}`
	// flipped is blue-green with time for a person to take it back.
	flipped = `{blueGreen: {progressDeadline: 1m, scaleDownDelay: 8s}}`
)

// BenchmarkTraffic asks 300 times a second while versions come in and are taken out, all of them well: whatever goes wrong
// is the rollout's, or the gateway's.
func BenchmarkTraffic(b *testing.B) {
	for b.Loop() {
		p := newPort(b)
		canary, green := p.begin(b, "clipper", everyWay), p.begin(b, "sloop", flipped)
		var rows []row
		during := func(what string, s story, do func()) {
			all, tested := s.ask(b, s.app, 300), s.ask(b, s.app, 40, testers, "yes")
			s.eventually(func() error {
				if len(all.since(0).by()) == 0 {
					return fmt.Errorf("nobody has an answer")
				}
				return nil
			})
			do()
			got := append(all.stop(), tested.stop()...)
			for _, one := range got {
				if one.fault != "" {
					b.Logf("%s: %s: %s by %q", what, one.at.Format(time.RFC3339Nano), one.fault, one.version)
				}
			}
			seconds := got[len(got)-1].at.Sub(got[0].at).Seconds()
			rows = append(rows, row{what, fmt.Sprintf("%d of %d (%.0f/s), by version %v", got.bad(), len(got), float64(len(got))/seconds, got.by()), "0"})
		}
		during("canary: header, 1, 20, 50, 80, 100%, promotion", canary, func() {
			canary.promote(p.better)
			canary.runs(p.better)
		})
		during("canary: aborted at 50%, and another version from Git", canary, func() {
			canary.promote(p.good)
			canary.reaches(func(s v1alpha1.RolloutStatus) bool { return s.Course != nil && s.Course.Weight == 50 })
			canary.abort()
			canary.reaches(func(s v1alpha1.RolloutStatus) bool { return s.Phase == v1alpha1.PhasePaused })
			canary.promote(p.better)
			canary.runs(p.better)
		})
		during("blue-green: the switch, and the old version is taken out", green, func() {
			green.promote(p.better)
			green.runs(p.better)
		})
		during("blue-green: switched, aborted, switched back", green, func() {
			green.promote(p.good)
			green.reaches(func(s v1alpha1.RolloutStatus) bool { return s.Course != nil && s.Course.Weight == 100 })
			green.abort()
			green.reaches(func(s v1alpha1.RolloutStatus) bool { return s.Phase == v1alpha1.PhasePaused })
			green.promote(p.better)
			green.runs(p.better)
		})
		table(b, "340 requests a second, of which 40 with the header: requests without a good answer", rows)
	}
}

// reaches waits until the status of the Rollout is as wanted.
func (s story) reaches(wanted func(v1alpha1.RolloutStatus) bool) {
	s.Helper()
	s.eventually(func() error {
		if got := s.status(); !wanted(got) {
			return fmt.Errorf("the Rollout is at %+v", got.Course)
		}
		return nil
	})
}

// abort takes out what comes in, as `slipway rollout abort` does.
func (s story) abort() {
	s.Helper()
	rollout := &v1alpha1.Rollout{}
	s.must(s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: "web"}, rollout))
	order, err := json.Marshal(v1alpha1.RolloutOrder{
		Bundle: rollout.Status.Target.Digest, Abort: true, Reason: "to see what it costs", By: "robin", At: time.Now(), Until: time.Now().Add(time.Hour),
	})
	s.must(err)
	base := rollout.DeepCopy()
	if rollout.Annotations == nil {
		rollout.Annotations = map[string]string{}
	}
	rollout.Annotations[manifests.AnnotationOrder] = string(order)
	s.must(s.Kube.Patch(s.Context(), rollout, client.MergeFrom(base)))
}
