// Package manifests holds the Set: the rendered Kubernetes objects of one
// Application, ordered and digested, and the names by which objects are known.
//
// It parses and compares; it renders nothing and talks to no cluster.
package manifests

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Labels and annotations that Slipway reads or writes. They are API: renaming one is a migration.
const (
	// LabelApplication is on every object that Slipway applies: the name of its Application.
	LabelApplication = "slipway.dev/application"
	// LabelApplicationSet is on every Application that an ApplicationSet made: the name of the set.
	LabelApplicationSet = "slipway.dev/applicationset"
	// AnnotationTemplated is on these, too: the digest of what the set last asked for.
	AnnotationTemplated = "slipway.dev/applicationset-digest"
	// LabelPullRequest is on every preview that an ApplicationSet made, and on its GitSource: the number of the pull request.
	LabelPullRequest = "slipway.dev/pull-request"
	// AnnotationWave orders objects within an apply: an integer, lower first, default 0.
	AnnotationWave = "slipway.dev/wave"
	// AnnotationPrune set to "disabled" keeps an object, to "enabled" allows pruning of a kind that is kept by default.
	AnnotationPrune = "slipway.dev/prune"
	// AnnotationSubstitute set to "disabled" leaves ${NAME} in an object alone.
	AnnotationSubstitute = "slipway.dev/substitute"
	// AnnotationPause is the break-glass pause on an Application: a JSON Pause with reason and expiry.
	AnnotationPause = "slipway.dev/pause"
	// AnnotationReconcile asks for a reconciliation now; any new value does.
	AnnotationReconcile = "slipway.dev/reconcile-at"
	// AnnotationApprovePrune holds the Set digest whose deletions a person has approved.
	AnnotationApprovePrune = "slipway.dev/approve-prune"
)

// FieldManager is the server-side apply manager of the reconciler; RolloutManager that of the rollout loop.
// HandOverManager owns spec.replicas after it left Git, until an autoscaler sets it.
const (
	FieldManager    = "slipway"
	RolloutManager  = "slipway-rollout"
	HandOverManager = "slipway-handover"
)

// Digest is a content digest, "sha256:" and 64 hex characters. Empty means none.
type Digest string

// Short returns 12 hex characters for people, never for comparison.
func (d Digest) Short() string {
	hexPart := strings.TrimPrefix(string(d), "sha256:")
	if len(hexPart) > 12 {
		return hexPart[:12]
	}
	return hexPart
}

// DigestOf returns the digest of content.
func DigestOf(content []byte) Digest {
	sum := sha256.Sum256(content)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// Ref names an object, independently of the version that its kind is served at.
type Ref struct {
	Group     string
	Kind      string
	Namespace string // empty for cluster-scoped objects
	Name      string
}

// RefOf returns the Ref of object.
func RefOf(object *unstructured.Unstructured) Ref {
	gvk := object.GroupVersionKind()
	return Ref{Group: gvk.Group, Kind: gvk.Kind, Namespace: object.GetNamespace(), Name: object.GetName()}
}

// GroupKind returns the kind with its group.
func (r Ref) GroupKind() schema.GroupKind { return schema.GroupKind{Group: r.Group, Kind: r.Kind} }

// String returns "apps/Deployment shop/web", "Namespace shop".
func (r Ref) String() string {
	kind := r.Kind
	if r.Group != "" {
		kind = r.Group + "/" + kind
	}
	if r.Namespace == "" {
		return kind + " " + r.Name
	}
	return kind + " " + r.Namespace + "/" + r.Name
}

// Compare orders Refs by group, kind, namespace and name.
func (r Ref) Compare(other Ref) int {
	return cmp.Or(
		cmp.Compare(r.Group, other.Group),
		cmp.Compare(r.Kind, other.Kind),
		cmp.Compare(r.Namespace, other.Namespace),
		cmp.Compare(r.Name, other.Name),
	)
}

// Set is the rendered objects of one Application. Treat it as immutable: its
// Digest was computed from the Objects and is not computed again.
type Set struct {
	Objects []*unstructured.Unstructured // ordered by Ref
	Digest  Digest                       // over all objects, independent of the order that they were rendered in
}

// NewSet orders and digests objects. It refuses objects without apiVersion,
// kind or name, and two objects with the same Ref.
func NewSet(objects []*unstructured.Unstructured) (Set, error) {
	sorted := slices.Clone(objects)
	for _, object := range sorted {
		if object.GetAPIVersion() == "" || object.GetKind() == "" {
			return Set{}, fmt.Errorf("object %q: apiVersion and kind are required", object.GetName())
		}
		if object.GetName() == "" {
			return Set{}, fmt.Errorf("%s: metadata.name is required (generateName cannot be applied)", object.GetKind())
		}
	}
	slices.SortFunc(sorted, func(a, b *unstructured.Unstructured) int { return RefOf(a).Compare(RefOf(b)) })
	hash := sha256.New()
	for i, object := range sorted {
		if i > 0 && RefOf(sorted[i-1]) == RefOf(object) {
			return Set{}, fmt.Errorf("%s: rendered twice; remove one of the two definitions", RefOf(object))
		}
		digest, err := ObjectDigest(object)
		if err != nil {
			return Set{}, err
		}
		fmt.Fprintf(hash, "%s\n", digest)
	}
	return Set{Objects: sorted, Digest: Digest("sha256:" + hex.EncodeToString(hash.Sum(nil)))}, nil
}

// Find returns the object that ref names, nil if the Set has none.
func (s Set) Find(ref Ref) *unstructured.Unstructured {
	i, found := slices.BinarySearchFunc(s.Objects, ref, func(object *unstructured.Unstructured, ref Ref) int {
		return RefOf(object).Compare(ref)
	})
	if !found {
		return nil
	}
	return s.Objects[i]
}

// ObjectDigest digests one object in its canonical JSON form (sorted keys, no white space).
func ObjectDigest(object *unstructured.Unstructured) (Digest, error) {
	content, err := json.Marshal(object.Object)
	if err != nil {
		return "", fmt.Errorf("%s: cannot be encoded: %w", RefOf(object), err)
	}
	return DigestOf(content), nil
}

// ImageUse is one image that an object refers to.
type ImageUse struct {
	Object    Ref
	Container string // that runs it, or volume that is filled from it
	Image     string
}

// Images lists the images of all pod templates and pods of the Set, in order.
func (s Set) Images() []ImageUse {
	var uses []ImageUse
	for _, object := range s.Objects {
		uses = append(uses, ObjectImages(object)...)
	}
	return uses
}

// podSpecPaths are where the built-in kinds keep a pod spec.
func podSpecPaths() [][]string {
	return [][]string{
		{"template", "spec"},
		{"spec", "template", "spec"},
		{"spec", "jobTemplate", "spec", "template", "spec"},
		{"spec"},
	}
}

// ObjectImages lists the images of one object: its pod template's, or its own if it is a Pod.
func ObjectImages(object *unstructured.Unstructured) []ImageUse {
	var uses []ImageUse
	for _, path := range podSpecPaths() {
		spec, found, _ := unstructured.NestedMap(object.Object, path...)
		if !found {
			continue
		}
		for _, list := range []string{"initContainers", "containers"} {
			containers, _, _ := unstructured.NestedSlice(spec, list)
			for _, item := range containers {
				container, _ := item.(map[string]any)
				image, _ := container["image"].(string)
				name, _ := container["name"].(string)
				if image != "" {
					uses = append(uses, ImageUse{Object: RefOf(object), Container: name, Image: image})
				}
			}
		}
		volumes, _, _ := unstructured.NestedSlice(spec, "volumes")
		for _, item := range volumes {
			volume, _ := item.(map[string]any)
			image, _, _ := unstructured.NestedString(volume, "image", "reference")
			name, _ := volume["name"].(string)
			if image != "" {
				uses = append(uses, ImageUse{Object: RefOf(object), Container: name, Image: image})
			}
		}
	}
	return uses
}
