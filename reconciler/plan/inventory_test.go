package plan_test

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

func TestInventoryShardsAndBack(t *testing.T) {
	for _, n := range []int{0, 1, v1alpha1.InventoryShardSize, 2*v1alpha1.InventoryShardSize + 1} {
		inventory := plan.Inventory{}
		for i := range n {
			ref := manifests.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: fmt.Sprint("web-", i)}
			inventory[ref] = plan.Entry{Version: "v1", UID: fmt.Sprint(i), Want: "w", Fields: "f", Bundled: i%2 == 0}
		}
		shards := inventory.Shards()
		if want := max(1, (n+v1alpha1.InventoryShardSize-1)/v1alpha1.InventoryShardSize); len(shards) != want {
			t.Errorf("%d entries: got %d shards, want %d", n, len(shards), want)
		}
		var all []v1alpha1.InventoryEntry
		for _, shard := range shards {
			all = append(all, shard...)
		}
		back, err := plan.FromEntries(all)
		if err != nil || !back.Equal(inventory) {
			t.Errorf("%d entries: not the same after a round trip (%v)", n, err)
		}
	}
	twice := []v1alpha1.InventoryEntry{{Kind: "ConfigMap", Name: "a"}, {Kind: "ConfigMap", Name: "a"}}
	if _, err := plan.FromEntries(twice); err == nil {
		t.Error("an object listed twice was accepted")
	}
}

func TestFieldsDigest(t *testing.T) {
	fields := func(json string) *metav1.FieldsV1 {
		f := &metav1.FieldsV1{}
		f.SetRawBytes([]byte(json))
		return f
	}
	ours := metav1.ManagedFieldsEntry{
		Manager: "slipway", Operation: "Apply", APIVersion: "v1", FieldsType: "FieldsV1",
		Time: &metav1.Time{}, FieldsV1: fields(`{"f:data":{"f:a":{},"f:b":{}}}`),
	}
	base, found := plan.FieldsDigest([]metav1.ManagedFieldsEntry{ours}, "slipway")
	if !found {
		t.Fatal("our entry was not found")
	}
	with := func(change func(*metav1.ManagedFieldsEntry)) []metav1.ManagedFieldsEntry {
		e := *ours.DeepCopy()
		change(&e)
		return []metav1.ManagedFieldsEntry{e}
	}
	other := metav1.ManagedFieldsEntry{Manager: "kubectl-edit", Operation: "Update", FieldsV1: fields(`{"f:data":{"f:c":{}}}`)}
	status := metav1.ManagedFieldsEntry{Manager: "slipway", Operation: "Apply", Subresource: "status", FieldsV1: fields(`{}`)}
	now := metav1.Now()
	for name, test := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		same    bool
	}{
		"another time":       {with(func(e *metav1.ManagedFieldsEntry) { e.Time = &now }), true},
		"another key order":  {with(func(e *metav1.ManagedFieldsEntry) { e.FieldsV1 = fields(`{"f:data":{"f:b":{}, "f:a":{}}}`) }), true},
		"others beside it":   {[]metav1.ManagedFieldsEntry{other, ours, status}, true},
		"a field taken":      {with(func(e *metav1.ManagedFieldsEntry) { e.FieldsV1 = fields(`{"f:data":{"f:a":{}}}`) }), false},
		"another version":    {with(func(e *metav1.ManagedFieldsEntry) { e.APIVersion = "v2" }), false},
		"no entry":           {[]metav1.ManagedFieldsEntry{other}, false},
		"an Update of ours":  {with(func(e *metav1.ManagedFieldsEntry) { e.Operation = "Update" }), false},
		"no managed fields":  {nil, false},
		"status of our name": {[]metav1.ManagedFieldsEntry{status}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := plan.FieldsDigest(test.entries, "slipway")
			if (got == base) != test.same {
				t.Errorf("digest is the same: %t, want %t", got == base, test.same)
			}
		})
	}
}

func TestIntendedListsWhatIsCreated(t *testing.T) {
	_, in := parseStory(t, "plan want=(cm/a cm/b) owned=(cm/a)")
	p, err := plan.Compute(in)
	if err != nil {
		t.Fatal(err)
	}
	intended := p.Intended()
	if entry, listed := intended[refOf("cm/b")]; !listed || entry.UID != "" {
		t.Errorf("cm/b: got %+v, listed %t", entry, listed)
	}
	if intended[refOf("cm/a")] != in.Owned[refOf("cm/a")] {
		t.Error("cm/a: its entry changed")
	}
}

func TestRebuild(t *testing.T) {
	_, in := parseStory(t, "plan want=(cm/a cm/b cm/c) live=(cm/a cm/b:foreign cm/left cm/other:app=billing)")
	versions := map[manifests.Ref]string{refOf("cm/a"): "v1", refOf("cm/left"): "v1"}
	canary := in.Seen[refOf("cm/left")]
	canary.Beside = true
	in.Seen[refOf("cm/web-canary")] = canary // the rollout loop takes it away
	rebuilt, err := plan.Rebuild("shop", in.Want, nil, versions, in.Seen)
	if err != nil {
		t.Fatal(err)
	}
	in.Owned = rebuilt
	p, err := plan.Compute(in)
	if err != nil {
		t.Fatal(err)
	}
	const want = "wave 0:\n  adopt     ConfigMap shop/b: exists already\n  create    ConfigMap shop/c: new\n" +
		"prune wave 0:\n  delete    ConfigMap shop/left: left Git\n1 unchanged\n"
	if p.String() != want {
		t.Errorf("got\n%swant\n%s", p, want)
	}
}
