package rollout_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// comesBack sets spec.undo, as Git would.
func (b *bed) comesBack(window string) {
	b.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"undo":`+window+`}}`))
	if err := b.client.Patch(b.ctx, b.rollout(), patch, client.FieldOwner("test")); err != nil {
		b.Fatal(err)
	}
}

// A version that ran until lately comes back at once, in full before it has traffic; outside of the window it goes its steps.
func TestFastUndo(t *testing.T) {
	b, load := measured(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 25}, {"pause": {}}, {"analysis": [`+failsAbove5+`]}]}}`)
	one, two := b.configured(b.image("v1", "ready"), "one"), b.configured(b.image("v2", "ready"), "two")
	v1 := b.rollOut(minute, one)
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.comesBack(`{}`)
	if w := b.rollout().Spec.Undo; w == nil || w.Revisions != 3 || w.Within.Duration.Hours() != 24 {
		t.Errorf("window %+v", w)
	}
	v2 := b.rollOut(minute, two)
	b.waitsAt(1, v2, "3 of 3, 1")
	b.approve(1, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()

	load.answer.Store("9") // nobody asks
	b.rollOut(minute, one)
	web := b.reaches(v1alpha1.PhaseHealthy, v1)
	b.alone()
	b.isQuiet()
	var trail []string
	for _, p := range web.Status.Verdict.Evidence.Trail {
		trail = append(trail, fmt.Sprintf("%s %d%%", p.What, p.Weight))
	}
	if got := strings.Join(trail, ", "); !strings.HasPrefix(got, "Started 0%, Weight 100%, Promoting 100%, Passed") {
		t.Errorf("trail %s", got)
	}
	if b.runs() != b.imageName("v1") || b.sizes() != "4 of 4, 0" || !b.wasTold("RolloutStarted", "without steps and analysis") {
		t.Errorf("runs %s with %s pods; told %q", b.runs(), b.sizes(), b.tellings())
	}
	if h := web.Status.History; !web.Status.Undo || len(h) != 1 || h[0].Bundle.Digest != v2.Digest || h[0].Failed {
		t.Errorf("history %+v", h)
	}

	b.comesBack(`{"within": "1ms"}`)
	b.rollOut(minute, two)
	b.waitsAt(1, v2, "3 of 3, 1")
	if b.rollout().Status.Undo {
		t.Error("it comes back at once, too late")
	}
}

// Without room for it a version that comes back gets no traffic, and one that crashes then has failed.
func TestFastUndoNeedsPods(t *testing.T) {
	b, _ := measured(t, "1", `{"blueGreen": {"progressDeadline": "1m", "approve": true}}`)
	one, two := b.configured(b.image("v1", "ready"), "one"), b.configured(b.image("v2", "ready"), "two")
	v1 := b.rollOut(minute, one)
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.comesBack(`{"revisions": 1}`)
	v2 := b.rollOut(minute, two)
	b.waitsAt(1, v2, "4 of 4, 4")
	b.approve(1, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	b.image("v1", "crash") // what was well may be ill by now
	b.rollOut(minute, one)
	sent := ""
	b.eventually("its pods are there", func() bool { return b.named("web-canary", &appsv1.Deployment{}) })
	b.eventually("it fails", func() bool {
		if to := b.reachedBy("web"); to != "v2:true" {
			sent = to
		}
		return b.rollout().Status.Phase == v1alpha1.PhaseFailed
	})
	web := b.reaches(v1alpha1.PhaseFailed, v1)
	if sent != "" || web.Status.Verdict.Reason != "Crashing" || b.reachedBy("web") != "v2:true" {
		t.Errorf("verdict %+v; the Service sent to %q", web.Status.Verdict, sent)
	}
	if h := web.Status.History; len(h) != 1 || h[0].Bundle.Digest != v1.Digest || !h[0].Failed {
		t.Errorf("history %+v", h)
	}
}
