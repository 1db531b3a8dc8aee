package plan_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// FuzzCompute builds a cluster out of bytes, three for each object, and holds
// the Plan to what it promises: it deletes only what is in the Inventory,
// nothing at all when something is unknown, and after it was carried out there
// is nothing left to do.
func FuzzCompute(f *testing.F) {
	f.Add([]byte{0x01, 0x00, 0x00}, uint8(0))
	f.Add([]byte{0x13, 0x20, 0x05, 0x02, 0x41, 0x01, 0x07, 0x03, 0x02}, uint8(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0x07, 0x0a, 0x42, 0x33, 0x11, 0x80}, uint8(3))
	f.Fuzz(func(t *testing.T, bytes []byte, options uint8) {
		in, unknown := cluster(bytes, options)
		p, err := plan.Compute(in)
		if err != nil {
			if !p.Empty() || p.Inventory != nil {
				t.Fatalf("an error came with a plan: %v\n%s", err, p)
			}
			return
		}
		if unknown {
			t.Fatalf("planned although something is unknown:\n%s", p)
		}
		checkDeletes(t, in, p)
		if p.Held != "" {
			return
		}
		again, err := plan.Compute(carryOut(in, p))
		if err != nil {
			t.Fatalf("planning again: %v\nafter\n%s", err, p)
		}
		if !again.Empty() {
			t.Fatalf("plan\n%sand again\n%s", p, again)
		}
	})
}

// cluster makes the input of a Plan out of bytes.
func cluster(bytes []byte, options uint8) (plan.In, bool) {
	kinds := []string{"cm", "deploy", "ns", "crd", "pvc"}
	in := plan.In{
		Application: "shop",
		Seen:        plan.Observed{}, Owned: plan.Inventory{}, Bundled: map[manifests.Ref]bool{}, InUse: map[manifests.Ref]string{},
		Options: plan.Options{Prune: options&1 == 0, Approved: options&2 == 0},
	}
	var wanted []string
	unknown := false
	for i := 0; i+2 < len(bytes) && i < 3*40; i += 3 {
		a, b, c := bytes[i], bytes[i+1], bytes[i+2]
		name := fmt.Sprintf("%s/o%d:v%d", kinds[int(a>>5)%len(kinds)], i, c&1)
		ref := refOf(name)
		in.Seen[ref] = plan.Live{State: plan.Absent}
		if a&1 != 0 {
			wanted = append(wanted, fmt.Sprintf("%s:wave=%d", name, int(c>>6)-1))
			in.Bundled[ref] = c&2 != 0
		}
		if a&2 != 0 {
			entry := plan.Entry{Version: "v1", UID: []string{"", "u1", "u2"}[int(b)%3], Fields: "f1", Bundled: c&4 != 0}
			entry.Want, _ = manifests.ObjectDigest(plan.Labelled(object(name), "shop"))
			in.Owned[ref] = entry
		}
		if a&4 != 0 {
			in.Seen[ref] = fuzzedLive(a, b)
		}
		if a&8 != 0 && b&0x80 != 0 {
			in.Seen[ref] = plan.Live{}
			unknown = unknown || a&3 != 0
		}
		if c&8 != 0 {
			in.InUse[ref] = "in use"
		}
	}
	var objects []*unstructured.Unstructured
	for _, item := range wanted {
		objects = append(objects, object(item))
	}
	in.Want, _ = manifests.NewSet(objects)
	return in, unknown
}

// fuzzedLive is a live object of any provenance.
func fuzzedLive(a, b byte) plan.Live {
	mods := map[string]string{"uid": []string{"u1", "u2"}[int(b>>2)&1], "fields": []string{"f1", "f2"}[int(b>>3)&1]}
	switch b >> 4 & 7 {
	case 0:
		mods["foreign"] = ""
	case 1:
		mods["foreign"], mods["by"] = "", "helm"
	case 2:
		mods["app"] = ""
	case 3:
		mods["rollout"] = ""
	case 4:
		mods["prune"] = "disabled"
	case 5:
		mods["prune"] = "enabled"
	case 6:
		mods["app"] = "billing"
	}
	if a&16 != 0 {
		mods["deleting"] = ""
	}
	return live(mods)
}

// checkDeletes holds that only owned objects are deleted, with the UID that was seen.
func checkDeletes(t *testing.T, in plan.In, p plan.Plan) {
	t.Helper()
	for _, action := range p.Actions() {
		if action.Verb != plan.Delete {
			continue
		}
		entry, owned := in.Owned[action.Ref]
		seen := in.Seen[action.Ref]
		switch {
		case !owned:
			t.Fatalf("%s: deleted, not owned", action.Ref)
		case in.Want.Find(action.Ref) != nil:
			t.Fatalf("%s: deleted, wanted", action.Ref)
		case action.UID == "" || action.UID != seen.UID:
			t.Fatalf("%s: deleted without its UID", action.Ref)
		case entry.UID != seen.UID && seen.Application != in.Application:
			t.Fatalf("%s: deleted, not the object that was applied", action.Ref)
		case in.InUse[action.Ref] != "" || !in.Options.Prune:
			t.Fatalf("%s: deleted although it is to be kept", action.Ref)
		}
	}
}

// carryOut does to the model what apply does to a cluster; objects that were being deleted are gone afterwards.
func carryOut(in plan.In, p plan.Plan) plan.In {
	after := in
	after.Seen = plan.Observed{}
	for ref, seen := range in.Seen {
		if !seen.Deleting {
			after.Seen[ref] = seen
		} else {
			after.Seen[ref] = plan.Live{State: plan.Absent}
		}
	}
	after.Owned = p.Inventory
	for round := range 2 {
		entries, gone := map[manifests.Ref]plan.Entry{}, []manifests.Ref{}
		for _, action := range p.Actions() {
			if action.Object == nil {
				after.Seen[action.Ref] = plan.Live{State: plan.Absent}
				gone = append(gone, action.Ref)
				continue
			}
			uid := action.UID
			if uid == "" {
				uid = "new"
			}
			fields := manifests.Digest("applied")
			entries[action.Ref] = plan.Entry{Version: action.Version, UID: uid, Want: action.Want, Fields: fields}
			after.Seen[action.Ref] = plan.Live{State: plan.Present, UID: uid, Ours: true, Fields: fields, Application: in.Application}
		}
		after.Owned = after.Owned.Merge(entries, gone)
		if round == 0 { // what waited for a deletion to end comes in a second plan
			if p, _ = plan.Compute(after); p.Held != "" {
				after.Options.Approved = true
				p, _ = plan.Compute(after)
			}
			after.Owned = p.Inventory
		}
	}
	return after
}
