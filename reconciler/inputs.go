package reconciler

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// Input is a ConfigMap or Secret that an Application takes values from.
type Input struct {
	Kind v1alpha1.InputKind
	Name string
	Data map[string]policy.Secret // of a ConfigMap too: whoever prints one need not ask which it is
}

// ReadInputs reads what app names. What is not there is left out: whether that
// may be is for the Renderer to say. An error means that nobody knows.
func ReadInputs(ctx context.Context, reader client.Reader, app *v1alpha1.Application) ([]Input, error) {
	var found []Input
	for _, reference := range app.Spec.Inputs() {
		one, _, err := readInput(ctx, reader, app.Namespace, reference)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, inputError(app, reference, err)
		}
		found = append(found, one)
	}
	return found, nil
}

func inputError(app *v1alpha1.Application, reference v1alpha1.InputReference, err error) error {
	return fmt.Errorf("application %s: %s %s: %w", app.Name, reference.Kind, reference.Name, err)
}

func readInput(ctx context.Context, reader client.Reader, namespace string, reference v1alpha1.InputReference) (Input, string, error) {
	one := Input{Kind: reference.Kind, Name: reference.Name, Data: map[string]policy.Secret{}}
	key := types.NamespacedName{Namespace: namespace, Name: reference.Name}
	if reference.Kind == v1alpha1.InputSecret {
		var secret corev1.Secret
		if err := reader.Get(ctx, key, &secret); err != nil {
			return Input{}, "", err
		}
		for name, value := range secret.Data {
			one.Data[name] = policy.NewSecret(string(value))
		}
		return one, secret.ResourceVersion, nil
	}
	var config corev1.ConfigMap
	if err := reader.Get(ctx, key, &config); err != nil {
		return Input{}, "", err
	}
	for name, value := range config.BinaryData {
		one.Data[name] = policy.NewSecret(string(value))
	}
	for name, value := range config.Data {
		one.Data[name] = policy.NewSecret(value)
	}
	return one, config.ResourceVersion, nil
}

// inputKey names an input in the cluster.
type inputKey struct {
	kind v1alpha1.InputKind
	types.NamespacedName
}

// inputs keeps what Applications name, by the versions that the watch on their
// metadata tells of: an input that has not changed is not read again.
type inputs struct {
	mu    sync.Mutex
	held  map[inputKey]heldInput
	named map[types.NamespacedName][]inputKey // by Application
}

type heldInput struct {
	version string
	input   Input
}

// of returns the inputs of app. What another process changes meanwhile comes back as an event of the watch.
func (i *inputs) of(ctx context.Context, cached, direct client.Reader, app *v1alpha1.Application) ([]Input, error) {
	references := app.Spec.Inputs()
	i.name(app, references)
	var found []Input
	for _, reference := range references {
		key := keyOf(app.Namespace, reference)
		seen := versionOf(reference.Kind)
		err := cached.Get(ctx, key.NamespacedName, seen)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, inputError(app, reference, err)
		}
		one, known := i.known(key, seen.ResourceVersion)
		if !known {
			var version string
			one, version, err = readInput(ctx, direct, app.Namespace, reference)
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, inputError(app, reference, err)
			}
			i.hold(key, version, one)
		}
		found = append(found, one)
	}
	return found, nil
}

func keyOf(namespace string, reference v1alpha1.InputReference) inputKey {
	return inputKey{reference.Kind, types.NamespacedName{Namespace: namespace, Name: reference.Name}}
}

func versionOf(kind v1alpha1.InputKind) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(string(kind)))
	return object
}

func (i *inputs) known(key inputKey, version string) (Input, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	held, ok := i.held[key]
	return held.input, ok && held.version == version
}

func (i *inputs) hold(key inputKey, version string, one Input) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.held == nil {
		i.held = map[inputKey]heldInput{}
	}
	i.held[key] = heldInput{version: version, input: one}
}

// name notes what app names now and forgets what nobody names any more.
func (i *inputs) name(app *v1alpha1.Application, references []v1alpha1.InputReference) {
	i.mu.Lock()
	defer i.mu.Unlock()
	own := client.ObjectKeyFromObject(app)
	if len(references) == 0 && i.named[own] == nil {
		return
	}
	if i.named == nil {
		i.named = map[types.NamespacedName][]inputKey{}
	}
	delete(i.named, own)
	for _, reference := range references {
		i.named[own] = append(i.named[own], keyOf(app.Namespace, reference))
	}
	named := map[inputKey]bool{}
	for _, keys := range i.named {
		for _, key := range keys {
			named[key] = true
		}
	}
	for key := range i.held {
		if !named[key] {
			delete(i.held, key)
		}
	}
}

// users returns the Applications that name an object.
func (i *inputs) users(key inputKey) []reconcile.Request {
	i.mu.Lock()
	defer i.mu.Unlock()
	var requests []reconcile.Request
	for app, keys := range i.named {
		if slices.Contains(keys, key) {
			requests = append(requests, reconcile.Request{NamespacedName: app})
		}
	}
	return requests
}

// ofInput asks for the Applications that name a changed ConfigMap or Secret. One
// that was not looked at yet will be anyway.
func (r *ApplicationReconciler) ofInput(kind v1alpha1.InputKind) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		return r.inputs.users(inputKey{kind, client.ObjectKeyFromObject(object)})
	})
}

// rendered hands the inputs of app to the Renderer.
func (r *ApplicationReconciler) rendered(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application) (Rendered, error) {
	found, err := r.inputs.of(ctx, r.Client, r.Secrets, app)
	if err != nil {
		return Rendered{}, err
	}
	return r.Renderer.Render(ctx, snapshot, app, found)
}

// render is rendered for those who ask for the Set alone.
func (r *ApplicationReconciler) render(ctx context.Context, snapshot gitsource.Snapshot, app *v1alpha1.Application) (manifests.Set, error) {
	rendered, err := r.rendered(ctx, snapshot, app)
	return rendered.Set, err
}
