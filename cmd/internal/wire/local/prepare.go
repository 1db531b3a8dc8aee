package local

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// agentKey reads or makes a key: that of the agent, which signs revert requests, or that of the server, which signs
// commits. It is a PEM file that slipway-agent --key and slipway-server --commit-key read too.
func agentKey(path string) (ed25519.PrivateKey, error) {
	key, err := wire.ReadKey(path)
	switch unread := (*fs.PathError)(nil); {
	case errors.Is(err, fs.ErrNotExist):
		return newAgentKey(path)
	case err != nil && !errors.As(err, &unread):
		err = fmt.Errorf("%w (remove it to get a new one)", err)
	}
	return key, err
}

func newAgentKey(path string) (ed25519.PrivateKey, error) {
	key, file, err := wire.NewKey()
	if err != nil {
		return nil, err
	}
	// A name of its own and a rename: killed at any moment, no half of a key is left.
	half := path + ".new"
	if err := os.WriteFile(half, file, 0o600); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return key, os.Rename(half, path)
}

// tries bounds the attempts after lost races; somebody may push meanwhile.
const tries = 10

// prepare writes the starter into an empty repository and enrols the agent's
// key, in one commit each. It reports whether the repository was empty.
func prepare(ctx context.Context, o Options, url string, key ed25519.PublicKey) (begun bool, err error) {
	store, err := gogit.Open(ctx, gogit.Options{Dir: filepath.Join(o.Data, "clone"), URL: url})
	if err != nil {
		return false, err
	}
	for range tries {
		began, err := begin(ctx, store, o)
		begun = begun || began
		if err == nil {
			err = enrol(ctx, store, o.Cluster, key)
		}
		if !errors.Is(err, gitsource.ErrMoved) {
			return begun, err
		}
	}
	return begun, fmt.Errorf("%s: lost the race %d times: %w", url, tries, gitsource.ErrMoved)
}

const ref = "refs/heads/" + Branch

func begin(ctx context.Context, store *gogit.Store, o Options) (bool, error) {
	if _, err := store.Fetch(ctx, ref); !errors.Is(err, gitsource.ErrNotFound) {
		return false, err
	}
	return true, commit(ctx, store, "", "Begin the environment repository", o.Starter...)
}

func enrol(ctx context.Context, store *gogit.Store, cluster string, key ed25519.PublicKey) error {
	path := environment.AgentKeyPath(cluster)
	tip, err := store.Fetch(ctx, ref)
	if err != nil {
		return err
	}
	snapshot, err := store.SnapshotOf(ctx, tip.ID)
	if err != nil {
		return err
	}
	want := undo.FormatPublicKey(key)
	content, err := snapshot.Tree.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if enrolled, err := undo.ParsePublicKey(content); err == nil && enrolled.Equal(key) {
		return nil
	}
	return commit(ctx, store, tip.ID, "Enrol the agent of "+cluster+"\n\nThe server carries out the reverts that this key signs.",
		gitsource.Change{Path: path, Content: want})
}

func commit(ctx context.Context, store *gogit.Store, parent gitsource.ObjectID, message string, changes ...gitsource.Change) error {
	tree, err := store.WriteTree(parent, changes)
	if err != nil {
		return err
	}
	who := gitsource.Person{Name: "slipway up", Email: "up@slipway.dev", When: time.Now()}
	made := gitsource.NewCommit{Tree: tree, Message: message, Author: who, Committer: who}
	if parent != "" {
		made.Parents = []gitsource.ObjectID{parent}
	}
	id, err := store.Commit(made)
	if err != nil {
		return err
	}
	return store.Push(ctx, ref, parent, id)
}

// installWithin bounds the wait for definitions and namespaces that were just made.
const installWithin = 30 * time.Second

// install applies objects in order. Those that are as they should be stay as they are.
func install(ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured) error {
	kube, err := client.New(config, client.Options{})
	if err != nil {
		return fmt.Errorf("API server %s: %w", config.Host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, installWithin)
	defer cancel()
	for _, object := range objects {
		if err := applyOne(ctx, kube, object); err != nil {
			return fmt.Errorf("install %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// applyOne tries again while the API server does not know a kind or namespace yet.
func applyOne(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := kube.Apply(ctx, client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner("slipway-install"), client.ForceOwnership)
		if !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
