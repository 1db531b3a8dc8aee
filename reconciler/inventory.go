package reconciler

import (
	"context"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
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
