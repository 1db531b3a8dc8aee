package reconciler

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// saveInventory stores the shards that changed, and nothing when none did.
func (p *pass) saveInventory(ctx context.Context, inventory plan.Inventory) error {
	before := p.owned()
	if maps.Equal(before, inventory) && before != nil {
		return nil
	}
	old, shards := before.Shards(), inventory.Shards()
	for i, entries := range shards {
		if i < len(old) && len(before) > 0 && equality.Semantic.DeepEqual(old[i], entries) {
			continue
		}
		if err := p.saveShard(ctx, i, entries); err != nil {
			p.lose()
			return err
		}
	}
	for i := len(shards); i < len(old); i++ {
		shard := &v1alpha1.Inventory{ObjectMeta: metav1.ObjectMeta{Namespace: p.app.Namespace, Name: p.shardKey(i).Name}}
		if err := p.r.Client.Delete(ctx, shard); err != nil && !apierrors.IsNotFound(err) {
			p.lose()
			return fmt.Errorf("application %s: inventory shard %d cannot be removed: %w", p.app.Name, i, err)
		}
	}
	p.remember(inventory)
	return nil
}

// lose forgets what is in memory, so that the next pass reads what is stored.
func (p *pass) lose() {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	delete(p.r.inventory, p.app.Name)
}

// saveShard writes a shard whole, in one request whether it is there or not: the list is atomic, and nobody else writes it.
func (p *pass) saveShard(ctx context.Context, shard int, entries []v1alpha1.InventoryEntry) error {
	key := p.shardKey(shard)
	stored := &v1alpha1.Inventory{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "Inventory"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion().String(), Kind: "Application", Name: p.app.Name, UID: p.app.UID,
			}},
		},
		Spec: v1alpha1.InventorySpec{Application: p.app.Name, Entries: entries},
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(stored)
	if err != nil {
		return fmt.Errorf("application %s: inventory cannot be written: %w", p.app.Name, err)
	}
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp") // of the zero time: not ours to set
	whole := client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: fields})
	if err := p.r.Client.Apply(ctx, whole, client.FieldOwner(manifests.FieldManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("application %s: inventory cannot be written: %w", p.app.Name, err)
	}
	return nil
}

// loadInventory returns what this Application owns: as this process last wrote it, else as it is stored.
func (p *pass) loadInventory(ctx context.Context) (plan.Inventory, error) {
	p.r.mu.Lock()
	known, found := p.r.inventory[p.app.Name]
	p.r.mu.Unlock()
	if found {
		return known, nil
	}
	entries, err := p.r.stored.take(ctx, p.r.Secrets, p.app.Namespace, p.app.Name)
	if err != nil {
		return nil, fmt.Errorf("application %s: inventory cannot be read: %w", p.app.Name, err)
	}
	inventory, err := plan.FromEntries(entries)
	if err != nil {
		return nil, fmt.Errorf("application %s: inventory: %w", p.app.Name, err)
	}
	p.remember(inventory)
	return inventory, nil
}

func (p *pass) remember(inventory plan.Inventory) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.r.inventory[p.app.Name] = inventory
}

func (p *pass) shardKey(shard int) types.NamespacedName {
	return types.NamespacedName{Namespace: p.app.Namespace, Name: shardName(p.app.Name, shard)}
}

func shardName(app string, shard int) string { return fmt.Sprintf("%s-%d", app, shard) }

// storedInventories are the Inventories as they were found when this process began, all of them by one listing: a thousand
// Applications must not ask a thousand times. What is asked for a second time is read anew: then a write has failed, or the
// Application was deleted and made again.
type storedInventories struct {
	mu     sync.Mutex
	listed bool
	shards map[string][]v1alpha1.InventoryEntry // by name, of Applications that were not asked for yet
	taken  map[string]bool
}

// page is how many Inventories are read at once; each may have a thousand entries.
const page = 100

// take returns the entries of app.
func (s *storedInventories) take(ctx context.Context, reader client.Reader, namespace, app string) ([]v1alpha1.InventoryEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[app] {
		return readShards(ctx, reader, namespace, app)
	}
	if err := s.list(ctx, reader, namespace); err != nil {
		return nil, err
	}
	s.taken[app] = true
	var entries []v1alpha1.InventoryEntry
	for shard := 0; ; shard++ {
		name := shardName(app, shard)
		more, found := s.shards[name]
		if !found {
			return entries, nil
		}
		delete(s.shards, name)
		entries = append(entries, more...)
	}
}

// list reads all, the first time.
func (s *storedInventories) list(ctx context.Context, reader client.Reader, namespace string) error {
	if s.listed {
		return nil
	}
	s.shards, s.taken = map[string][]v1alpha1.InventoryEntry{}, map[string]bool{}
	for next := ""; ; {
		var found v1alpha1.InventoryList
		if err := reader.List(ctx, &found, client.InNamespace(namespace), client.Limit(page), client.Continue(next)); err != nil {
			return err
		}
		for i := range found.Items {
			s.shards[found.Items[i].Name] = found.Items[i].Spec.Entries
		}
		if next = found.Continue; next == "" {
			s.listed = true
			return nil
		}
	}
}

func readShards(ctx context.Context, reader client.Reader, namespace, app string) ([]v1alpha1.InventoryEntry, error) {
	var entries []v1alpha1.InventoryEntry
	for shard := 0; ; shard++ {
		var stored v1alpha1.Inventory
		err := reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: shardName(app, shard)}, &stored)
		if apierrors.IsNotFound(err) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, stored.Spec.Entries...)
	}
}
