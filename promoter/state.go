package promoter

import (
	"context"
	"errors"
	"fmt"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// maxFile bounds the files that are read whole.
const maxFile = 1 << 20

// state is what the repo says at one commit.
type state struct {
	id   gitsource.ObjectID
	tree gitsource.Tree
}

// tip returns the state of the followed branch.
func (p *Promoter) tip(ctx context.Context) (state, error) {
	at, found, err := p.stateOf(ctx, p.ref)
	if err == nil && !found {
		err = fmt.Errorf("%s: %w (the environment repo needs a first commit)", p.ref, gitsource.ErrNotFound)
	}
	return at, err
}

// stateOf returns the state of a ref that may be missing.
func (p *Promoter) stateOf(ctx context.Context, ref string) (state, bool, error) {
	revision, err := p.repo.Fetch(ctx, ref)
	if errors.Is(err, gitsource.ErrNotFound) {
		return state{}, false, nil
	}
	if err != nil {
		return state{}, false, err
	}
	at, err := p.stateAt(ctx, revision.ID)
	return at, err == nil, err
}

func (p *Promoter) stateAt(ctx context.Context, id gitsource.ObjectID) (state, error) {
	snapshot, err := p.repo.SnapshotOf(ctx, id)
	if err != nil {
		return state{}, err
	}
	return state{id: id, tree: snapshot.Tree}, nil
}

func (s state) snapshot() gitsource.Snapshot {
	return gitsource.Snapshot{Revision: gitsource.Revision{ID: s.id}, Tree: s.tree}
}

// file returns the content of a file; false if nothing is there.
func (s state) file(path string) ([]byte, bool, error) {
	entry, err := s.tree.Entry(path)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case entry.Kind == gitsource.Absent:
		return nil, false, nil
	case entry.Kind != gitsource.File && entry.Kind != gitsource.Executable:
		return nil, false, fmt.Errorf("%s: not a regular file (make it one; links are not edited)", path)
	case entry.Size > maxFile:
		return nil, false, fmt.Errorf("%s: %d bytes; at most %d are read", path, entry.Size, maxFile)
	}
	content, err := s.tree.ReadFile(path)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return content, true, nil
}

func (s state) environment(name string) (environment.Environment, error) {
	delivery, err := s.delivery()
	if err != nil {
		return environment.Environment{}, err
	}
	return delivery.Find(name)
}

func (s state) delivery() (environment.Delivery, error) {
	content, found, err := s.file(environment.DeliveryPath)
	if err != nil {
		return environment.Delivery{}, err
	}
	if !found {
		return environment.Delivery{}, fmt.Errorf("%s: not at %s (run slipway init)", environment.DeliveryPath, s.id.Short())
	}
	return environment.Parse(content)
}

// kustomizationNames are those that kustomize looks for, in its order.
var kustomizationNames = [...]string{"kustomization.yaml", "kustomization.yml", "Kustomization"} //nolint:gochecknoglobals // a closed list

// kustomization returns the file that says which images are used below folder.
func (s state) kustomization(folder string) (path string, content []byte, err error) {
	for _, name := range kustomizationNames {
		path = folder + "/" + name
		content, found, err := s.file(path)
		if err != nil || found {
			return path, content, err
		}
	}
	return "", nil, fmt.Errorf("%s: no kustomization there (create %s/kustomization.yaml)", folder, folder)
}

// images returns the entries of the kustomization below folder.
func (s state) images(folder string) ([]edit.Image, error) {
	path, content, err := s.kustomization(folder)
	if err != nil {
		return nil, err
	}
	images, err := edit.Current(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return images, nil
}

func (s state) holds(env, app string) (environment.Holds, error) {
	path := environment.HoldPath(env, app)
	content, found, err := s.file(path)
	if err != nil || !found {
		return environment.Holds{}, err
	}
	holds, err := environment.ParseHolds(content)
	if err != nil {
		return environment.Holds{}, fmt.Errorf("%s: %w", path, err)
	}
	return holds, nil
}

// setHolds returns the change that makes the file say holds.
func setHolds(env, app string, holds environment.Holds) gitsource.Change {
	path := environment.HoldPath(env, app)
	if holds.Empty() {
		return gitsource.Change{Path: path, Delete: true}
	}
	return gitsource.Change{Path: path, Content: holds.Bytes()}
}

// checkFreeze fails with a *FrozenError while env is frozen. A Freeze that cannot be read freezes.
func (p *Promoter) checkFreeze(s state, env string) error {
	path := environment.FreezePath(env)
	content, found, err := s.file(path)
	if err != nil || !found {
		return err
	}
	freeze, err := environment.ParseFreeze(content)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if freeze.Active(p.now()) {
		return &FrozenError{Environment: env, Freeze: freeze}
	}
	return nil
}
