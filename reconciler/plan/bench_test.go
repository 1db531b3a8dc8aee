package plan_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// BenchmarkTenThousandObjects plans one large Application: when nothing of it is there, when all of it is as it was, and
// when one object in a hundred has drifted.
func BenchmarkTenThousandObjects(b *testing.B) {
	const objects = 10_000
	for _, c := range []struct {
		name  string
		live  func(i int) bool
		drift func(i int) bool
	}{
		{"first", func(int) bool { return false }, func(int) bool { return false }},
		{"steady", func(int) bool { return true }, func(int) bool { return false }},
		{"drifted", func(int) bool { return true }, func(i int) bool { return i%100 == 0 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			in := plan.In{Application: "shop", Seen: plan.Observed{}, Owned: plan.Inventory{}, Options: plan.Options{Prune: true}}
			var all []*unstructured.Unstructured
			for i := range objects {
				item := fmt.Sprintf("cm/o%05d:v1", i)
				all = append(all, object(item))
				ref := refOf(item)
				in.Seen[ref] = plan.Live{State: plan.Absent}
				if !c.live(i) {
					continue
				}
				fields := manifests.Digest("f1")
				want, err := manifests.ObjectDigest(plan.Labelled(object(item), "shop"))
				if err != nil {
					b.Fatal(err)
				}
				in.Owned[ref] = plan.Entry{Version: "v1", UID: "u1", Want: want, Fields: fields}
				if c.drift(i) {
					fields = "f2"
				}
				in.Seen[ref] = plan.Live{State: plan.Present, UID: "u1", Ours: true, Fields: fields, Application: "shop"}
			}
			var err error
			if in.Want, err = manifests.NewSet(all); err != nil {
				b.Fatal(err)
			}
			actions := 0
			for b.Loop() {
				p, err := plan.Compute(in)
				if err != nil {
					b.Fatal(err)
				}
				actions = len(p.Actions())
			}
			b.ReportMetric(float64(actions), "actions")
		})
	}
}
