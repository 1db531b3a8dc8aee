package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Entry is what is remembered of one owned object.
type Entry struct {
	Version string // API version that it was applied at, without the group
	// UID of the object that was applied. Empty while the object is only
	// intended (see Plan.Intended) or while a Rollout has not created it yet.
	UID string
	// Want is the digest of what was asked for, Fields that of our own
	// managedFields entry as the API server returned it (see FieldsDigest).
	Want   manifests.Digest
	Fields manifests.Digest
	// Bundled says that a Rollout moves the object: it is pruned, but neither patched nor healed.
	Bundled bool
	// Done says that the object is a Job that was seen to complete: it is not created again when its time has removed it.
	Done bool
}

// Inventory is what an Application owns in the cluster. The nil Inventory is
// empty. Functions of this package never change one that they are given.
type Inventory map[manifests.Ref]Entry

// FromEntries joins the entries of all shards. It refuses an object that is listed twice.
func FromEntries(entries []v1alpha1.InventoryEntry) (Inventory, error) {
	inventory := make(Inventory, len(entries))
	for _, e := range entries {
		ref := manifests.Ref{Group: e.Group, Kind: e.Kind, Namespace: e.Namespace, Name: e.Name}
		if _, twice := inventory[ref]; twice {
			return nil, fmt.Errorf("%s: listed twice in the inventory", ref)
		}
		inventory[ref] = Entry{
			Version: e.Version,
			UID:     e.UID,
			Want:    manifests.Digest(e.Want),
			Fields:  manifests.Digest(e.Fields),
			Bundled: e.Bundled,
			Done:    e.Done,
		}
	}
	return inventory, nil
}

// Entries returns the API form, ordered by Ref.
func (i Inventory) Entries() []v1alpha1.InventoryEntry {
	entries := make([]v1alpha1.InventoryEntry, 0, len(i))
	for _, ref := range i.Refs() {
		e := i[ref]
		entries = append(entries, v1alpha1.InventoryEntry{
			Group:     ref.Group,
			Version:   e.Version,
			Kind:      ref.Kind,
			Namespace: ref.Namespace,
			Name:      ref.Name,
			UID:       e.UID,
			Want:      string(e.Want),
			Fields:    string(e.Fields),
			Bundled:   e.Bundled,
			Done:      e.Done,
		})
	}
	return entries
}

// Shards cuts Entries into pieces of at most v1alpha1.InventoryShardSize. An
// empty Inventory has one empty shard, so that there is always one to write.
func (i Inventory) Shards() [][]v1alpha1.InventoryEntry {
	entries := i.Entries()
	if len(entries) == 0 {
		return [][]v1alpha1.InventoryEntry{{}}
	}
	return slices.Collect(slices.Chunk(entries, v1alpha1.InventoryShardSize))
}

// Refs returns the owned objects in order.
func (i Inventory) Refs() []manifests.Ref {
	return slices.SortedFunc(maps.Keys(i), manifests.Ref.Compare)
}

// Merge returns a copy with entries put in and gone taken out: the Inventory
// after an apply is Plan.Inventory.Merge(result.Entries, result.Gone).
func (i Inventory) Merge(entries map[manifests.Ref]Entry, gone []manifests.Ref) Inventory {
	merged := make(Inventory, len(i)+len(entries))
	maps.Copy(merged, i)
	maps.Copy(merged, entries)
	for _, ref := range gone {
		delete(merged, ref)
	}
	return merged
}

// Equal says whether both list the same objects with the same entries.
func (i Inventory) Equal(other Inventory) bool { return maps.Equal(i, other) }

// Rebuild makes the Inventory of an Application again after it was lost.
// seen holds what carries the Application's label, wanted or not. Objects of
// applied, the Set that is known to be applied, count as unchanged since; if
// that is not known pass the empty Set, and everything is applied once more.
func Rebuild(application string, applied manifests.Set, bundled map[manifests.Ref]bool, versions map[manifests.Ref]string, seen Observed) (Inventory, error) {
	rebuilt := Inventory{}
	for ref, live := range seen {
		if live.State != Present || live.Beside || live.Application != application || (!live.Ours && !live.rolledOut()) {
			continue
		}
		entry := Entry{Version: versions[ref], UID: live.UID, Bundled: bundled[ref]}
		if object := applied.Find(ref); object != nil && live.Ours {
			digest, err := manifests.ObjectDigest(Labelled(object, application))
			if err != nil {
				return nil, err
			}
			entry.Want, entry.Fields = digest, live.Fields
		}
		rebuilt[ref] = entry
	}
	return rebuilt, nil
}
