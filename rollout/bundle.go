package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// load reads a stored Bundle and holds it against its digest.
func (r *Reconciler) load(ctx context.Context, namespace string, bundle v1alpha1.BundleRef) ([]*unstructured.Unstructured, error) {
	key := client.ObjectKey{Namespace: namespace, Name: bundle.Name}
	var revision appsv1.ControllerRevision
	if err := r.direct.Get(ctx, key, &revision); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", bundle.Name, err)
	}
	objects, err := manifests.UnpackBundle(revision.Data.Raw, nil)
	if errors.Is(err, manifests.ErrBundleSecret) {
		var secret corev1.Secret
		if err := r.direct.Get(ctx, key, &secret); err != nil {
			return nil, fmt.Errorf("bundle %s: its Secret: %w", bundle.Name, err)
		}
		objects, err = manifests.UnpackBundle(revision.Data.Raw, secret.Data[manifests.BundleSecretKey])
	}
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", bundle.Name, err)
	}
	set, err := manifests.NewSet(objects)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", bundle.Name, err)
	}
	if string(set.Digest) != bundle.Digest {
		return nil, fmt.Errorf("bundle %s: what is stored has digest %s, not %s (store it again)", bundle.Name, set.Digest, bundle.Digest)
	}
	return inOrder(objects), nil
}

// inOrder puts what a workload uses before the workload.
func inOrder(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	sorted := slices.Clone(objects)
	rank := func(object *unstructured.Unstructured) int {
		if isWorkload(object) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(sorted, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return sorted
}

// formsOf is f(Bundle, State): objects as they are applied. The pods of a Deployment carry the digest of their configuration:
// else they would stay as they are when nothing but that changes, and what was judged would not be what they have the next
// time that they start. Those that were taken over do not, or they would have to be replaced for it.
func formsOf(bundle []*unstructured.Unstructured, rollout *v1alpha1.Rollout, placed analysis.Placed) []*unstructured.Unstructured {
	var forms []*unstructured.Unstructured
	configuration := configurationOf(bundle)
	for _, object := range bundle {
		form := formOf(object, rollout.Labels[manifests.LabelApplication], placed)
		if form.GetKind() == "Deployment" && configuration != "" && configuration != rollout.Status.TakenOver {
			merge(form, map[string]any{manifests.AnnotationConfiguration: configuration}, "spec", "template", "metadata", "annotations")
		}
		forms = append(forms, form)
	}
	return forms
}

// configurationOf is the digest of the ConfigMaps and Secrets of a Bundle, empty when it has none.
func configurationOf(bundle []*unstructured.Unstructured) string {
	var configuration []*unstructured.Unstructured
	for _, object := range bundle {
		if isConfiguration(object) {
			configuration = append(configuration, object)
		}
	}
	set, err := manifests.NewSet(configuration)
	if len(configuration) == 0 || err != nil { // they are part of a Set already
		return ""
	}
	return set.Digest.Short()
}

func isConfiguration(object *unstructured.Unstructured) bool {
	return object.GetKind() == "ConfigMap" || object.GetKind() == "Secret"
}

// takesOver notes what the pods of a workload are configured with that ran before there was a Rollout.
func (p *pass) takesOver(ctx context.Context, bundle v1alpha1.BundleRef) error {
	w, now := p.o.Workload, p.rollout.Status
	if w.Knowledge != analysis.Present || w.Placed.Bundle != "" || now.Stable != nil || now.AppliedBundle != "" {
		return nil
	}
	objects, err := p.r.load(ctx, p.rollout.Namespace, bundle)
	if err != nil {
		return err
	}
	status := now.DeepCopy()
	status.TakenOver = configurationOf(objects)
	return p.r.writeStatus(ctx, p.rollout, *status)
}

// formOf is one object as it is applied. Its pods see nothing of the marks.
func formOf(object *unstructured.Unstructured, application string, placed analysis.Placed) *unstructured.Unstructured {
	form := object.DeepCopy()
	labels := form.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[manifests.LabelApplication] = application
	form.SetLabels(labels)
	annotations := form.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[manifests.AnnotationBundle] = placed.Bundle
	if isWorkload(form) && placed.Failed != "" {
		annotations[manifests.AnnotationFailedBundle] = placed.Failed
	}
	form.SetAnnotations(annotations)
	manifests.EncodeData(form)
	return form
}

// refusalOf tells the API server's verdict on an object of the new version from trouble on the way.
func refusalOf(err error) *analysis.Refusal {
	var stable errStable
	blames := !errors.As(err, &stable) && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err))
	return &analysis.Refusal{Invalid: blames, Message: err.Error()}
}

// revisionsOf lists what is stored of a Rollout's Bundles, newest first; metadata only.
func (r *Reconciler) revisionsOf(ctx context.Context, rollout *v1alpha1.Rollout) ([]metav1.PartialObjectMetadata, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ControllerRevisionList"))
	if err := r.direct.List(ctx, list, client.InNamespace(rollout.Namespace)); err != nil {
		return nil, err
	}
	owned := slices.DeleteFunc(list.Items, func(revision metav1.PartialObjectMetadata) bool { return !ownedBy(&revision, rollout) })
	slices.SortFunc(owned, func(a, b metav1.PartialObjectMetadata) int {
		return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
	})
	return owned, nil
}

func ownedBy(object metav1.Object, rollout *v1alpha1.Rollout) bool {
	return slices.ContainsFunc(object.GetOwnerReferences(), func(owner metav1.OwnerReference) bool { return owner.UID == rollout.UID })
}

// keptRevisions is how many Bundles besides stable and target stay stored.
const keptRevisions = 10

// collect deletes old Bundles of rollout, each with the Secret of its name.
func (r *Reconciler) collect(ctx context.Context, rollout *v1alpha1.Rollout) error {
	revisions, err := r.revisionsOf(ctx, rollout)
	if err != nil {
		return fmt.Errorf("old bundles: %w", err)
	}
	kept := 0
	for i := range revisions {
		revision := &revisions[i]
		if inUse(revision.Name, rollout) {
			continue
		}
		if kept++; kept <= keptRevisions {
			continue
		}
		if err := r.deleteSecret(ctx, revision.Name, rollout); err != nil {
			return fmt.Errorf("old bundle %s: %w", revision.Name, err)
		}
		if err := r.client.Delete(ctx, revision, client.Preconditions{UID: &revision.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("old bundle %s: %w", revision.Name, err)
		}
	}
	return nil
}

func inUse(name string, rollout *v1alpha1.Rollout) bool {
	used := []*v1alpha1.BundleRef{rollout.Status.Stable, rollout.Status.Target, rollout.Spec.Bundle}
	if course := rollout.Status.Course; course != nil {
		used = append(used, course.Canary)
	}
	return slices.ContainsFunc(used, func(bundle *v1alpha1.BundleRef) bool { return bundle != nil && bundle.Name == name })
}

// deleteSecret deletes the Secret of a Bundle if it is the Rollout's: any other of that name is somebody else's.
func (r *Reconciler) deleteSecret(ctx context.Context, name string, rollout *v1alpha1.Rollout) error {
	secret := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
	err := r.direct.Get(ctx, client.ObjectKey{Namespace: rollout.Namespace, Name: name}, secret)
	if err != nil || !ownedBy(secret, rollout) {
		return client.IgnoreNotFound(err)
	}
	return client.IgnoreNotFound(r.client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID}))
}
