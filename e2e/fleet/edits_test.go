package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const edits = 500

func serviceAccount() schema.GroupVersionKind {
	return schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}
}

func service() schema.GroupVersionKind {
	return schema.GroupVersionKind{Version: "v1", Kind: "Service"}
}

func ingress() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"}
}

func deployment() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
}

// edit is one way in which somebody lays hands on an object of ours.
type edit struct {
	what string
	kind schema.GroupVersionKind
	do   func(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error
}

func set(value any, fields ...string) func(context.Context, client.Client, *unstructured.Unstructured) error {
	return func(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
		if err := unstructured.SetNestedField(object.Object, value, fields...); err != nil {
			return err
		}
		return kube.Update(ctx, object, client.FieldOwner("kubectl-edit"))
	}
}

func patch(kind types.PatchType, text string) func(context.Context, client.Client, *unstructured.Unstructured) error {
	return func(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
		return kube.Patch(ctx, object, client.RawPatch(kind, []byte(text)), client.FieldOwner("kubectl-patch"))
	}
}

func remove(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
	return kube.Delete(ctx, object)
}

func scale(to int) func(context.Context, client.Client, *unstructured.Unstructured) error {
	return func(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
		return kube.SubResource("scale").Patch(ctx, object, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, to)), client.FieldOwner("kubectl-scale"))
	}
}

func forcedApply(fields map[string]any) func(context.Context, client.Client, *unstructured.Unstructured) error {
	return func(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
		want := &unstructured.Unstructured{Object: fields}
		want.SetGroupVersionKind(object.GroupVersionKind())
		want.SetName(object.GetName())
		want.SetNamespace(object.GetNamespace())
		return kube.Apply(ctx, client.ApplyConfigurationFromUnstructured(want), client.FieldOwner("another-tool"), client.ForceOwnership)
	}
}

// putBack changes a label and puts it back to what we asked for: only its ownership is lost.
func putBack(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
	for _, value := range []string{"pirates", "harbour"} {
		text := fmt.Appendf(nil, `{"metadata":{"labels":{"team":%q}}}`, value)
		if err := kube.Patch(ctx, object, client.RawPatch(types.MergePatchType, text), client.FieldOwner("fickle-tool")); err != nil {
			return err
		}
	}
	return nil
}

func ownEdits() []edit {
	return []edit{
		{"change of a port", service(), patch(types.JSONPatchType, `[{"op":"replace","path":"/spec/ports/0/port","value":8080}]`)},
		{"change of a host", ingress(), patch(types.JSONPatchType, `[{"op":"replace","path":"/spec/rules/0/host","value":"elsewhere.example.com"}]`)},
		{"change of a label", serviceAccount(), set("pirates", "metadata", "labels", "team")},
		{"removal of a label", deployment(), patch(types.JSONPatchType, `[{"op":"remove","path":"/metadata/labels/team"}]`)},
		{"deletion of an Ingress", ingress(), remove},
		{"deletion of a Deployment", deployment(), remove},
		{"wiped managedFields", service(), patch(types.MergePatchType, `{"metadata":{"managedFields":[{}]}}`)},
		{"scale", deployment(), scale(2)},
		{"forced apply of another manager", deployment(), forcedApply(map[string]any{"spec": map[string]any{"replicas": int64(1)}})},
		{"value put back by another manager", serviceAccount(), putBack},
	}
}

// handEdits lays hands on our objects, and waits each time until all of it is as it was,
// our entry in managedFields included.
func (f *fleet) handEdits() {
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	ways := ownEdits()
	next := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range next {
				way := ways[i%len(ways)]
				// Neighbouring edits go to different objects, so that each is healed alone.
				duration, err := f.handEdit(way, name((i*7+i/len(ways))%applications))
				mu.Lock()
				took[way.what] = append(took[way.what], duration)
				mu.Unlock()
				if err != nil {
					f.Errorf("%s: %s", way.what, err)
				}
			}
		})
	}
	for i := range edits {
		next <- i
	}
	close(next)
	workers.Wait()
	var all []time.Duration
	for _, way := range ways {
		all = append(all, took[way.what]...)
		f.Logf("%-36s %3d times, p50 %4d ms, p99 %4d ms", way.what, len(took[way.what]), quantile(took[way.what], 50).Milliseconds(), quantile(took[way.what], 99).Milliseconds())
	}
	f.Logf("%d hand edits healed: p50 %d ms, p99 %d ms", len(all), quantile(all, 50).Milliseconds(), quantile(all, 99).Milliseconds())
}

func quantile(durations []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func (f *fleet) handEdit(way edit, app string) (time.Duration, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(way.kind)
	key := client.ObjectKey{Namespace: namespace, Name: app}
	if err := f.Kube.Get(f.ctx, key, object); err != nil {
		return 0, err
	}
	before := essence(object)
	if err := way.do(f.ctx, f.Kube, object); err != nil && !apierrors.IsConflict(err) {
		return 0, err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	live := &unstructured.Unstructured{}
	for {
		seen := &unstructured.Unstructured{}
		seen.SetGroupVersionKind(way.kind)
		err := f.Kube.Get(ctx, key, seen)
		if ctx.Err() == nil {
			live = seen // what a request that was cut off brings says nothing
		}
		if err == nil && live.GetDeletionTimestamp() == nil && reflect.DeepEqual(essence(live), before) {
			return time.Since(start), nil
		}
		select {
		case <-ctx.Done():
			return time.Since(start), errors.Join(err, fmt.Errorf("%s %s is not healed:\n%s\nwas\n%s", way.kind.Kind, app, dump(essence(live)), dump(before)))
		case <-tick.C:
		}
	}
}

// essence is what we asked for and our claim to it, without what the API server keeps anew each time.
func essence(object *unstructured.Unstructured) map[string]any {
	clean := object.DeepCopy()
	var ours any
	for _, entry := range clean.GetManagedFields() {
		if entry.Manager == "slipway" && entry.Operation == "Apply" && entry.Subresource == "" {
			ours = entry.FieldsV1.GetRawString()
		}
	}
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"} {
		unstructured.RemoveNestedField(clean.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(clean.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
	if annotations := clean.GetAnnotations(); len(annotations) == 0 {
		unstructured.RemoveNestedField(clean.Object, "metadata", "annotations")
	}
	delete(clean.Object, "status")
	clean.Object["ours"] = ours
	return clean.Object
}

func dump(v any) string {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// foreignEdits changes what is not ours: the agent must not lift a finger.
func (f *fleet) foreignEdits() {
	start := time.Now()
	for i := range edits {
		object := &unstructured.Unstructured{}
		object.SetNamespace(namespace)
		var err error
		switch i % 3 {
		case 0:
			object.SetGroupVersionKind(service())
			object.SetName(name(i % applications))
			err = patch(types.MergePatchType, fmt.Sprintf(`{"metadata":{"annotations":{"someone.example/note":"%d"}}}`, i))(f.ctx, f.Kube, object)
		case 1:
			object.SetGroupVersionKind(ingress())
			object.SetName(name(i % applications))
			text := fmt.Appendf(nil, `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.%d"}]}}}`, i%250)
			err = f.Kube.Status().Patch(f.ctx, object, client.RawPatch(types.MergePatchType, text), client.FieldOwner("ingress-controller"))
		default:
			object.SetGroupVersionKind(deployment())
			object.SetName("scaled")
			err = scale(1+i%3)(f.ctx, f.Kube, object)
		}
		f.must(err)
	}
	// All of it has reached the agent's watches when a later change of ours has.
	f.settle()
	requests, err := f.Requests(start)
	f.must(err)
	f.Logf("%d edits that are not ours: %d requests", edits, len(requests))
	for _, request := range requests[:min(20, len(requests))] {
		f.Errorf("asked for %s", request)
	}
}
