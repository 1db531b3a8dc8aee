package progressive

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/render"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// agrees fails unless what runs is what the tip of Git renders to: each field that Git says, nothing of what a rollout moves
// besides, no object beside, and pods of that version alone.
func (s story) agrees() error {
	want, err := s.rendered()
	if err != nil {
		return err
	}
	wrong := []error{s.isAs(want)}
	names := map[schema.GroupVersionKind][]string{}
	image := ""
	for _, object := range want.Objects {
		names[object.GroupVersionKind()] = append(names[object.GroupVersionKind()], object.GetName())
		if containers, _, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers"); len(containers) == 1 {
			image, _, _ = unstructured.NestedString(containers[0].(map[string]any), "image")
		}
	}
	for kind, known := range names {
		wrong = append(wrong, s.nothingBeside(kind, known))
	}
	return errors.Join(append(wrong, s.podsRun(image), s.settled())...)
}

// asInGit fails unless all objects are as the tip of Git says, whatever else is still there.
func (s story) asInGit() error {
	want, err := s.rendered()
	if err != nil {
		return err
	}
	return s.isAs(want)
}

func (s story) isAs(want manifests.Set) error {
	var wrong []error
	for _, object := range want.Objects {
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(object.GroupVersionKind())
		if err := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: object.GetName()}, live); err != nil {
			return err
		}
		for _, difference := range differences("", object.Object, live.Object) {
			wrong = append(wrong, fmt.Errorf("%s: %s", manifests.RefOf(object), difference))
		}
		if _, moved := live.GetAnnotations()[manifests.AnnotationTraffic]; moved {
			wrong = append(wrong, fmt.Errorf("%s: traffic is told apart", manifests.RefOf(object)))
		}
	}
	return errors.Join(wrong...)
}

// rendered is the Set of the app at the tip.
func (s story) rendered() (manifests.Set, error) {
	tip, err := s.Tip(s.Context())
	if err != nil {
		return manifests.Set{}, err
	}
	snapshot, err := s.Repo.SnapshotOf(s.Context(), tip)
	if err != nil {
		return manifests.Set{}, err
	}
	result, err := s.renderer.Render(s.Context(), snapshot, render.Spec{Path: "apps/" + s.app + "/production", Application: s.app})
	return result.Set, err
}

// whole are maps that Git says all of.
var whole = []string{".spec.selector", ".data"}

// differences are the fields of want that live does not have so. Lists are compared whole.
func differences(path string, want, live any) (all []string) {
	switch want := want.(type) {
	case map[string]any:
		have, _ := live.(map[string]any)
		for key, value := range want {
			all = append(all, differences(path+"."+key, value, have[key])...)
		}
		for key := range have {
			if _, said := want[key]; !said && slices.Contains(whole, path) {
				all = append(all, fmt.Sprintf("%s.%s is %v, and not in Git", path, key, have[key]))
			}
		}
	case []any:
		have, _ := live.([]any)
		if len(have) != len(want) {
			return []string{fmt.Sprintf("%s is %v, in Git %v", path, live, want)}
		}
		for i := range want {
			all = append(all, differences(fmt.Sprintf("%s[%d]", path, i), want[i], have[i])...)
		}
	default:
		if fmt.Sprint(want) != fmt.Sprint(live) {
			all = append(all, fmt.Sprintf("%s is %v, in Git %v", path, live, want))
		}
	}
	return all
}

func (s story) nothingBeside(kind schema.GroupVersionKind, known []string) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind)
	if err := s.Kube.List(s.Context(), list, client.InNamespace(s.app)); err != nil {
		return err
	}
	for _, object := range list.Items {
		if !slices.Contains(known, object.GetName()) && object.GetName() != "kube-root-ca.crt" {
			return fmt.Errorf("%s %s is there, and not in Git", kind.Kind, object.GetName())
		}
	}
	return nil
}

// podsRun fails unless all pods are ready ones of an image, as many as Git says.
func (s story) podsRun(image string) error {
	var pods corev1.PodList
	if err := s.Kube.List(s.Context(), &pods, client.InNamespace(s.app)); err != nil {
		return err
	}
	ready := 0
	for i := range pods.Items {
		pod := &pods.Items[i]
		if got := pod.Spec.Containers[0].Image; got != image {
			return fmt.Errorf("pod %s runs %s, in Git %s", pod.Name, got, image)
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
				ready++
			}
		}
	}
	if ready != replicas {
		return fmt.Errorf("%d of %d pods are ready", ready, replicas)
	}
	return nil
}

// settled fails unless the Rollout is done with what Git says.
func (s story) settled() error {
	if got := s.status(); got.Phase != v1alpha1.PhaseHealthy || got.Stable == nil || got.Target == nil || got.Stable.Digest != got.Target.Digest || strings.Contains(got.AppliedBundle, " ") {
		return fmt.Errorf("the Rollout is %s, with %q in place", got.Phase, got.AppliedBundle)
	}
	return nil
}
