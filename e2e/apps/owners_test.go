package apps

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// thing is a ConfigMap of the namespace "shared", in the folder of the Application.
func (s story) thing(name, value string) gitsource.Change {
	return s.file(name+".yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+", namespace: shared}\ndata: {value: "+value+"}\n")
}

// owned waits until a thing has a value and an owner, and returns its UID.
func (s story) owned(thing, owner, value string) types.UID {
	s.Helper()
	var uid types.UID
	s.eventually(func() error {
		found, err := shared.clients.CoreV1().ConfigMaps("shared").Get(s.Context(), thing, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := found.Labels[manifests.LabelApplication]; got != owner || found.Data["value"] != value {
			return fmt.Errorf("%s belongs to %q and is %q, want %q and %q", thing, got, found.Data["value"], owner, value)
		}
		uid = found.UID
		return nil
	})
	return uid
}

// listed reports whether the Inventory of an Application has a ConfigMap.
func (s story) listed(thing string) bool {
	s.Helper()
	var inventory v1alpha1.Inventory
	err := shared.Kube.Get(s.Context(), types.NamespacedName{Namespace: world.Namespace, Name: s.name + "-0"}, &inventory)
	if apierrors.IsNotFound(err) {
		return false
	}
	s.must(err)
	for _, entry := range inventory.Spec.Entries {
		if entry.Name == thing {
			return true
		}
	}
	return false
}

// Who has an object keeps it; the other says whose it is, and takes it over as soon as it is let go.
func TestTwoOwners(t *testing.T) {
	first := tell(t, "first", "")
	second := story{t, "second"}
	first.commit("First has it", first.thing("boat", "first"))
	uid := first.owned("boat", "first", "first")
	first.ready()
	second.commit("Second wants it", application("second", ""), second.thing("boat", "second"), second.thing("oar", "second"))
	second.says(v1alpha1.ReasonOwnedByAnother, "ConfigMap shared/boat: belongs to Application first, Application second wants it too")
	if !second.stalled() {
		t.Error("not stalled")
	}
	// No flip-flop, and the owner goes on to heal.
	_, err := shared.clients.CoreV1().ConfigMaps("shared").Patch(t.Context(), "boat", types.MergePatchType, []byte(`{"data":{"value":"spoiled"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	first.must(err)
	first.owned("boat", "first", "first")
	first.ready()

	// In one commit from here to there: in whatever order they come to it.
	first.commit("First lets go", world.Remove("apps/first/boat.yaml"), first.thing("anchor", "first"))
	if got := second.owned("boat", "second", "second"); got != uid {
		t.Error("the object was deleted in between")
	}
	second.ready()
	first.ready()
	first.eventually(func() error {
		if first.listed("boat") {
			return fmt.Errorf("the inventory of first still lists what second owns")
		}
		return nil
	})
}

// Many objects move at once, in both directions, between Applications that come to it in either order.
func TestMovingObjects(t *testing.T) {
	left := tell(t, "left", "")
	right := story{t, "right"}
	things := make([]string, 12) // more than the guard lets go without a person
	var start, moved []gitsource.Change
	for i := range things {
		things[i] = fmt.Sprintf("crate-%d", i)
		from, to := left, right
		if i%2 == 1 {
			from, to = right, left
		}
		start = append(start, from.thing(things[i], "here"))
		moved = append(moved, world.Remove("apps/"+from.name+"/"+things[i]+".yaml"), to.thing(things[i], "there"))
	}
	left.commit("Start", append(start, application("right", ""), left.thing("keep-left", "here"), right.thing("keep-right", "here"))...)
	left.ready()
	right.ready()
	uids := map[string]types.UID{}
	for i, thing := range things {
		uids[thing] = left.owned(thing, []string{"left", "right"}[i%2], "here")
	}
	left.commit("Move all of them", moved...)
	for i, thing := range things {
		if left.owned(thing, []string{"right", "left"}[i%2], "there") != uids[thing] {
			t.Errorf("%s was deleted in between", thing)
		}
	}
	left.ready()
	right.ready()
}

// An Application gets another name, in one commit: the parent creates the new one and deletes the old one.
func TestRename(t *testing.T) {
	old := tell(t, "old-name", "")
	old.commit("Start", old.thing("cargo", "here"))
	uid := old.owned("cargo", "old-name", "here")
	old.ready()
	renamed := strings.Replace(string(application("new-name", "").Content), "path: apps/new-name", "path: apps/old-name", 1)
	old.commit("Rename", world.Remove("clusters/demo/old-name.yaml"), world.Write("clusters/demo/new-name.yaml", renamed))
	newName := story{t, "new-name"}
	newName.eventually(func() error {
		if _, err := shared.Application(t.Context(), "old-name"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the old Application is there: %v", err)
		}
		return nil
	})
	if newName.owned("cargo", "new-name", "here") != uid {
		t.Error("the object was deleted in between")
	}
	newName.ready()
}
