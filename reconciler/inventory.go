package reconciler

import (
	"context"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

func (p *pass) saveShard(ctx context.Context, shard int, entries []v1alpha1.InventoryEntry) error {
	key := p.shardKey(shard)
	var stored v1alpha1.Inventory
	err := p.r.Secrets.Get(ctx, key, &stored)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("application %s: inventory cannot be read: %w", p.app.Name, err)
	}
	if err == nil {
		stored.Spec = v1alpha1.InventorySpec{Application: p.app.Name, Entries: entries}
		if err := p.r.Client.Update(ctx, &stored); err != nil {
			return fmt.Errorf("application %s: inventory cannot be written: %w", p.app.Name, err)
		}
		return nil
	}
	stored = v1alpha1.Inventory{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion().String(), Kind: "Application", Name: p.app.Name, UID: p.app.UID,
			}},
		},
		Spec: v1alpha1.InventorySpec{Application: p.app.Name, Entries: entries},
	}
	if err := p.r.Client.Create(ctx, &stored); err != nil {
		return fmt.Errorf("application %s: inventory cannot be written: %w", p.app.Name, err)
	}
	return nil
}
