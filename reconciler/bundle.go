package reconciler

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// pointAt replaces the Rollout of bundle by one that points at it, and adds what
// stores it. Until the Rollout is there the store has no owner and waits for the next pass.
func (p *pass) pointAt(ctx context.Context, objects []*unstructured.Unstructured, bundle plan.Bundle, setDigest manifests.Digest,
	revision gitsource.Revision, inUse map[manifests.Ref]string,
) ([]*unstructured.Unstructured, error) {
	data, secret, digest, err := manifests.PackBundle(bundle.Rollout, bundle.Objects)
	if err != nil {
		return nil, err
	}
	ref := v1alpha1.BundleRef{
		Name: manifests.BundleName(bundle.Rollout, digest), Digest: string(digest),
		SetDigest: string(setDigest), Revision: revision.String(),
	}
	live, err := p.liveRollout(ctx, bundle.Rollout)
	if err != nil {
		return nil, err
	}
	if live != nil {
		// The same Bundle out of another Set is not another version: what stands is left alone.
		if live.Spec.Bundle != nil && live.Spec.Bundle.Digest == ref.Digest {
			ref = *live.Spec.Bundle
		}
		stored, err := storedBundle(live, ref, data, secret, waveBefore(objects, bundle.Rollout))
		if err != nil {
			return nil, err
		}
		objects = append(append([]*unstructured.Unstructured{}, objects...), stored...)
		keepStable(live, ref, inUse)
	}
	out := make([]*unstructured.Unstructured, 0, len(objects))
	for _, object := range objects {
		if live != nil && manifests.RefOf(object) == bundle.Rollout {
			object = object.DeepCopy()
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&ref)
			if err != nil {
				return nil, err
			}
			if err := unstructured.SetNestedMap(object.Object, fields, "spec", "bundle"); err != nil {
				return nil, fmt.Errorf("%s: %w", bundle.Rollout, err)
			}
		}
		out = append(out, object)
	}
	return out, nil
}

// waveBefore is the wave before that of a Rollout, so that what it points at is there when it points.
func waveBefore(objects []*unstructured.Unstructured, rollout manifests.Ref) string {
	wave := 0
	for _, object := range objects {
		if manifests.RefOf(object) == rollout {
			wave, _ = strconv.Atoi(object.GetAnnotations()[manifests.AnnotationWave])
		}
	}
	return strconv.Itoa(wave - 1)
}

func (p *pass) liveRollout(ctx context.Context, ref manifests.Ref) (*v1alpha1.Rollout, error) {
	var live v1alpha1.Rollout
	err := p.r.Client.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, &live)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be read: %w", ref, err)
	}
	return &live, nil
}

// keepStable keeps the stored Bundle of the stable version until the wanted one is stable itself, and that of a canary
// until it is gone: one that is replaced by the wanted version leaves as fast as stable grows.
func keepStable(live *v1alpha1.Rollout, wanted v1alpha1.BundleRef, inUse map[manifests.Ref]string) {
	keep := func(bundle *v1alpha1.BundleRef, as string) {
		if bundle == nil || bundle.Digest == wanted.Digest {
			return
		}
		why := "used by the " + as + " of Rollout " + live.Namespace + "/" + live.Name
		inUse[manifests.Ref{Group: "apps", Kind: "ControllerRevision", Namespace: live.Namespace, Name: bundle.Name}] = why
		inUse[manifests.Ref{Kind: "Secret", Namespace: live.Namespace, Name: bundle.Name}] = why
	}
	if course := live.Status.Course; course != nil {
		keep(course.Canary, "canary")
	}
	keep(live.Status.Stable, "stable version")
}

// storedBundle returns the ControllerRevision, and the Secret if there is one, that hold a Bundle.
func storedBundle(owner *v1alpha1.Rollout, ref v1alpha1.BundleRef, data, secret []byte, wave string) ([]*unstructured.Unstructured, error) {
	metadata := func() map[string]any {
		return map[string]any{
			"name": ref.Name, "namespace": owner.Namespace,
			"annotations": map[string]any{manifests.AnnotationWave: wave},
			"ownerReferences": []any{map[string]any{
				"apiVersion": v1alpha1.GroupVersion().String(), "kind": "Rollout", "name": owner.Name, "uid": string(owner.UID),
			}},
		}
	}
	var content map[string]any
	if err := json.Unmarshal(data, &content); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", ref.Name, err)
	}
	stored := []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata(), "data": content, "revision": int64(1),
	}}}
	if secret != nil {
		stored = append(stored, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": metadata(), "type": "slipway.dev/bundle",
			"data": map[string]any{manifests.BundleSecretKey: base64.StdEncoding.EncodeToString(secret)},
		}})
	}
	return stored, nil
}
