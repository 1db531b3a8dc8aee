package promoter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// Previous as RollbackRequest.To is the newest earlier state of the app that is not held.
const Previous = "previous"

// maxHistory bounds how many commits are searched for an earlier state.
const maxHistory = 200

// RollbackRequest asks to put an app's files back.
type RollbackRequest struct {
	App, Environment string
	To               string // a full commit id, or Previous
	Author           gitsource.Person
	Reason           string
	// Lift removes Holds on what is rolled back to instead of being refused.
	Lift bool
}

// Rollback puts the files below the app's path back to what they were at an
// earlier commit, with a Hold on each digest left behind. It is a commit on the
// followed branch in every Environment, and Freezes do not stop it: like a
// revert it takes back, it brings nothing new.
func (p *Promoter) Rollback(ctx context.Context, r RollbackRequest) (Result, error) {
	if err := errors.Join(checkNames(r.App, r.Environment), checkPerson(r.Author)); err != nil {
		return Result{}, err
	}
	if r.To != Previous {
		if _, err := gitsource.ParseObjectID(r.To); err != nil {
			return Result{}, fmt.Errorf("rollback to %q: want %q or a full commit id: %w", r.To, Previous, err)
		}
	}
	return p.retry(ctx, func(ctx context.Context) (Result, error) {
		at, err := p.tip(ctx)
		if err != nil {
			return Result{}, err
		}
		env, err := at.environment(r.Environment)
		if err != nil {
			return Result{}, err
		}
		holds, err := at.holds(env.Name, r.App)
		if err != nil {
			return Result{}, err
		}
		to, err := p.earlier(ctx, at, env.AppPath(r.App), holds, r)
		if err != nil {
			return Result{}, err
		}
		d, err := p.restoring(at, to, env, holds, r)
		if err != nil {
			return Result{}, err
		}
		return p.commitAndPush(ctx, at, d)
	})
}

// earlier finds the state to go back to.
func (p *Promoter) earlier(ctx context.Context, at state, path string, holds environment.Holds, r RollbackRequest) (state, error) {
	now, err := at.tree.Entry(path)
	if err != nil {
		return state{}, fmt.Errorf("%s: %w", path, err)
	}
	if r.To != Previous {
		id, _ := gitsource.ParseObjectID(r.To) // checked by Rollback
		base, err := p.repo.MergeBase(ctx, at.id, id)
		if err != nil {
			return state{}, fmt.Errorf("commit %s: %w", id.Short(), err)
		}
		if base != id {
			return state{}, fmt.Errorf("commit %s: not in the history of %s (name an earlier commit of it)", id.Short(), short(p.ref))
		}
		return p.stateAt(ctx, id)
	}
	commits, err := p.repo.Log(ctx, at.id, maxHistory)
	if err != nil {
		return state{}, err
	}
	for _, c := range firstParents(commits, at.id) {
		s, err := p.stateAt(ctx, c.ID)
		if err != nil {
			return state{}, err
		}
		entry, err := s.tree.Entry(path)
		if err != nil {
			return state{}, fmt.Errorf("%s at %s: %w", path, c.ID.Short(), err)
		}
		if entry.Kind != gitsource.Directory || entry.ID == now.ID {
			continue
		}
		images, err := s.images(path)
		if err == nil && !anyHeld(images, holds) {
			return s, nil
		}
	}
	return state{}, fmt.Errorf("%s: no earlier state that is not held in the last %d commits (name a commit)", path, maxHistory)
}

// firstParents returns what the branch itself was at, newest first: commits of
// merged branches never stood at the tip.
func firstParents(commits []gitsource.Commit, tip gitsource.ObjectID) []gitsource.Commit {
	byID := map[gitsource.ObjectID]gitsource.Commit{}
	for _, c := range commits {
		byID[c.ID] = c
	}
	var out []gitsource.Commit
	for id := tip; ; {
		c, found := byID[id]
		if !found {
			return out
		}
		out = append(out, c)
		if len(c.Parents) == 0 {
			return out
		}
		id = c.Parents[0]
	}
}

func anyHeld(images []edit.Image, holds environment.Holds) bool {
	return slices.ContainsFunc(images, func(i edit.Image) bool {
		_, held := holds.Find("", i.Digest)
		return held
	})
}

// restoring computes the commit that puts the app's files back.
func (p *Promoter) restoring(at, to state, env environment.Environment, holds environment.Holds, r RollbackRequest) (draft, error) {
	path := env.AppPath(r.App)
	entry, err := to.tree.Entry(path)
	if err != nil {
		return draft{}, fmt.Errorf("%s at %s: %w", path, to.id.Short(), err)
	}
	if entry.Kind != gitsource.Directory {
		return draft{}, fmt.Errorf("%s: not there at %s (name a later commit)", path, to.id.Short())
	}
	// With base equal to ours, every file takes the earlier content and nothing can conflict.
	changes, _, err := revert.Merge(at.tree, at.tree, to.tree, revert.Within(path))
	if err != nil || len(changes) == 0 {
		return draft{}, err
	}
	after, err := to.images(path)
	if err != nil {
		return draft{}, err
	}
	kept := holds
	for _, i := range after {
		hold, held := holds.Find("", i.Digest)
		if held && !r.Lift {
			return draft{}, &HeldError{App: r.App, Environment: env.Name, Hold: hold}
		}
		kept = kept.Without(hold.Image, hold.Digest)
	}
	// What stands now may be too broken to read; then it names no digest to hold.
	before, _ := at.images(path)
	reason := r.Reason
	if reason == "" {
		reason = "rolled back"
	}
	for _, h := range undo.Left(before, after) {
		kept = kept.With(environment.Hold{Image: h.Name, Digest: h.Digest, Reason: reason, Since: p.now(), By: r.Author.Name})
	}
	if string(kept.Bytes()) != string(holds.Bytes()) {
		changes = append(changes, setHolds(env.Name, r.App, kept))
	}
	return draft{changes: changes, author: r.Author, message: rollbackMessage(to.id, after, r)}, nil
}

func rollbackMessage(to gitsource.ObjectID, images []edit.Image, r RollbackRequest) string {
	text := fmt.Sprintf("Roll %s in %s back to %s\n", r.App, r.Environment, to.Short())
	if r.Reason != "" {
		text += "\n" + strings.TrimSpace(r.Reason) + "\n"
	}
	var block trailer.Block
	for _, i := range images {
		block.Changes = append(block.Changes, trailer.Change{App: r.App, Environment: r.Environment, Image: i.Reference()})
	}
	return trailer.Append(text, block)
}
