package rollout_test

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// rollout returns the Rollout, nil when there is none.
func (b *bed) rollout() *v1alpha1.Rollout {
	b.Helper()
	var web v1alpha1.Rollout
	err := b.client.Get(b.ctx, client.ObjectKey{Namespace: b.namespace, Name: "web"}, &web)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.Fatal(err)
	}
	return &web
}

func (b *bed) get(object client.Object) {
	b.Helper()
	if err := b.client.Get(b.ctx, client.ObjectKey{Namespace: b.namespace, Name: "web"}, object); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) deployment() *appsv1.Deployment {
	b.Helper()
	var deployment appsv1.Deployment
	b.get(&deployment)
	return &deployment
}

// runs returns the image that the Deployment asks for.
func (b *bed) runs() string {
	b.Helper()
	return b.deployment().Spec.Template.Spec.Containers[0].Image
}

// reaches waits for a phase on a target.
func (b *bed) reaches(phase v1alpha1.RolloutPhase, bundle v1alpha1.BundleRef) *v1alpha1.Rollout {
	b.Helper()
	var web *v1alpha1.Rollout
	b.eventually(fmt.Sprintf("%s is %s", bundle.Name, phase), func() bool {
		web = b.rollout()
		return web.Status.Phase == phase && web.Status.Target != nil && web.Status.Target.Digest == bundle.Digest &&
			(phase == v1alpha1.PhaseProgressing || web.Status.AppliedBundle != "")
	})
	return web
}

// eventually polls until the condition holds.
func (b *bed) eventually(what string, holds func() bool) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(40 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-end:
			status := "no rollout"
			if web := b.rollout(); web != nil {
				status = fmt.Sprintf("%+v", web.Status)
			}
			b.Fatalf("timed out: %s\n%s\nevents: %q", what, status, b.tellings())
		}
	}
}

// steady holds when the condition stays true for a second.
func (b *bed) steady(what string, holds func() bool) {
	b.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Second)
	for {
		if !holds() {
			b.Fatalf("not steady: %s", what)
		}
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// tellings returns all events so far.
func (b *bed) tellings() []string {
	for {
		select {
		case event := <-b.events.Events:
			b.told = append(b.told, event)
		default:
			return b.told
		}
	}
}

func (b *bed) wasTold(words ...string) bool {
	for _, event := range b.tellings() {
		all := true
		for _, word := range words {
			all = all && strings.Contains(event, word)
		}
		if all {
			return true
		}
	}
	return false
}

// gathered returns the label values and the value of each metric of a family, in order.
func (b *bed) gathered(family string) []string {
	b.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		b.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, metric := range f.GetMetric() {
			var words []string
			for _, label := range metric.GetLabel() {
				words = append(words, label.GetValue())
			}
			value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			lines = append(lines, fmt.Sprintf("%s %g", strings.Join(words, " "), value))
		}
	}
	return lines
}
