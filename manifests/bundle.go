package manifests

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// How a stored Bundle is found. They are API between the loop that stores Bundles and the one that rolls them out.
const (
	// AnnotationBundle is on the metadata of every object that the rollout loop applied: the digest of its Bundle.
	AnnotationBundle = "slipway.dev/bundle"
	// AnnotationFailedBundle is on the metadata of a workload that went back to
	// stable: the digest of the Bundle that failed, known here also when its Verdict could not be recorded.
	AnnotationFailedBundle = "slipway.dev/failed-bundle"
	// AnnotationTraffic is on a Route, or on a Service that a blue-green Rollout moves: the percentage of traffic that the
	// new version has by it, and the header that brings requests to it besides, "25 NAME=VALUE".
	AnnotationTraffic = "slipway.dev/traffic"
	// AnnotationApproved is on a Rollout: the JSON of a v1alpha1.StepApproval, a person's yes to the step that waits.
	AnnotationApproved = "slipway.dev/approved-step"
	// AnnotationConfiguration is on the pods of a Rollout's Deployment: the digest of what they are configured with.
	AnnotationConfiguration = "slipway.dev/configuration"
	// AnnotationOrder is on a Rollout: the JSON of a v1alpha1.RolloutOrder, what a person wants of it for a while.
	AnnotationOrder = "slipway.dev/order"
	// LabelCanary is on all that runs beside stable for a while, its pods too, and on the copies of configuration that the
	// pods of a StatefulSet use: the name of the workload.
	LabelCanary = "slipway.dev/canary-of"
	// LabelCheck is on the Jobs that a Rollout runs to judge a version, and on their pods: the name of the Rollout.
	LabelCheck = "slipway.dev/check-of"
	// BundleSecretKey is the data key of the Secret that holds a Bundle's Secret
	// objects. The Secret has the name of the Bundle's ControllerRevision.
	BundleSecretKey = "objects"
)

// ErrBundleSecret means that a Bundle has Secret objects and none were given to unpack it.
var ErrBundleSecret = errors.New("the Bundle's Secret objects are missing")

// storedBundle is what data.raw of a Bundle's ControllerRevision holds.
type storedBundle struct {
	Objects []map[string]any `json:"objects"`
	// Secrets names the Secret objects, which are kept in a Secret.
	Secrets []string `json:"secrets,omitempty"`
}

// BundleName names the ControllerRevision and the Secret that hold a Bundle of
// rollout. Equal Bundles have equal names, so storing one twice changes nothing.
func BundleName(rollout Ref, digest Digest) string {
	name := rollout.Name
	if longest := 253 - 13; len(name) > longest {
		name = name[:longest]
	}
	return name + "-" + digest.Short()
}

// PackBundle encodes objects for a ControllerRevision (data) and a Secret
// (secret, nil when no object is a Secret). The digest is that of NewSet. It
// refuses an object outside of the Rollout's namespace: the loop that applies it works in that one only.
func PackBundle(rollout Ref, objects []*unstructured.Unstructured) (data, secret []byte, digest Digest, err error) {
	set, err := NewSet(objects)
	if err != nil {
		return nil, nil, "", fmt.Errorf("%s: bundle: %w", rollout, err)
	}
	stored := storedBundle{Objects: []map[string]any{}}
	var secrets []map[string]any
	for _, object := range set.Objects {
		ref := RefOf(object)
		if ref.Namespace != rollout.Namespace {
			return nil, nil, "", fmt.Errorf("%s: bundle: %s is in another namespace", rollout, ref)
		}
		if isSecret(ref) {
			stored.Secrets = append(stored.Secrets, ref.Name)
			secrets = append(secrets, object.Object)
			continue
		}
		stored.Objects = append(stored.Objects, object.Object)
	}
	if data, err = json.Marshal(stored); err != nil {
		return nil, nil, "", fmt.Errorf("%s: bundle: %w", rollout, err)
	}
	if len(secrets) > 0 {
		if secret, err = json.Marshal(secrets); err != nil {
			return nil, nil, "", fmt.Errorf("%s: bundle: %w", rollout, err)
		}
	}
	return data, secret, set.Digest, nil
}

// UnpackBundle returns the objects that PackBundle encoded, ordered by Ref.
// NewSet over them yields the Bundle's digest, which the caller compares. The
// error is ErrBundleSecret when data names Secrets that secret does not hold.
func UnpackBundle(data, secret []byte) ([]*unstructured.Unstructured, error) {
	var stored storedBundle
	if err := utiljson.Unmarshal(data, &stored); err != nil {
		return nil, fmt.Errorf("bundle: cannot be decoded: %w", err)
	}
	var secrets []map[string]any
	if len(secret) > 0 {
		if err := utiljson.Unmarshal(secret, &secrets); err != nil {
			return nil, errors.New("bundle: its Secret objects cannot be decoded") // the cause could quote a value
		}
	}
	var objects []*unstructured.Unstructured
	var found []string
	for _, content := range slices.Concat(stored.Objects, secrets) {
		object := &unstructured.Unstructured{Object: content}
		if ref := RefOf(object); isSecret(ref) {
			found = append(found, ref.Name)
		}
		objects = append(objects, object)
	}
	if !slices.Equal(found, stored.Secrets) {
		return nil, fmt.Errorf("bundle: %w: got %q, want %q", ErrBundleSecret, found, stored.Secrets)
	}
	set, err := NewSet(objects)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return set.Objects, nil
}

func isSecret(ref Ref) bool { return ref.Group == "" && ref.Kind == "Secret" }
