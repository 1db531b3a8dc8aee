package promoter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
)

// maxRequest bounds the commits of a request that are read for their trailers.
const maxRequest = 50

// Merge merges the request of app in env into the followed branch by a commit
// with two parents, and deletes the request's branch. An open pull request is merged on its host, by the host's rules. Holds and Freezes are
// checked again on what results. It fails with *HeldError, *FrozenError or
// *ConflictError, or gitsource.ErrNotFound where there is no request.
func (p *Promoter) Merge(ctx context.Context, env, app string, by gitsource.Person, reason string) (Result, error) {
	check := func(at, merged state) error {
		if err := p.checkFreeze(at, env); err != nil {
			return err
		}
		return checkMerged(at, merged, env, app)
	}
	return p.mergeBranch(ctx, RequestBranch(env, app), env, app, by, reason, check)
}

// MergeRevert merges the branch on which a revert waits for a person. Neither Holds nor Freezes stop it.
func (p *Promoter) MergeRevert(ctx context.Context, env, app string, by gitsource.Person, reason string) (Result, error) {
	return p.mergeBranch(ctx, RevertBranch(env, app), env, app, by, reason, func(at, merged state) error { return nil })
}

func (p *Promoter) mergeBranch(ctx context.Context, branch, env, app string, by gitsource.Person, reason string, check func(at, merged state) error) (Result, error) {
	if err := errors.Join(checkNames(app, env), checkPerson(by)); err != nil {
		return Result{}, err
	}
	return p.retry(ctx, func(ctx context.Context) (Result, error) {
		at, err := p.tip(ctx)
		if err != nil {
			return Result{}, err
		}
		request, found, err := p.stateOf(ctx, "refs/heads/"+branch)
		if err != nil {
			return Result{}, err
		}
		if !found {
			return Result{}, fmt.Errorf("branch %s: %w (there is no open request; promote first)", branch, gitsource.ErrNotFound)
		}
		base, err := p.repo.MergeBase(ctx, at.id, request.id)
		if err != nil {
			return Result{}, err
		}
		result := Result{Commit: at.id, Branch: short(p.ref), Direct: true, NoChange: true}
		if base != request.id {
			d, err := p.merging(ctx, branch, base, at, request, by, reason)
			if err != nil {
				return Result{}, err
			}
			if result, err = p.pushMerge(ctx, branch, at, request, d, check); err != nil {
				return Result{}, err
			}
		}
		return result, p.dropBranch(ctx, branch, request.id)
	})
}

// merging computes the merge commit of a request.
func (p *Promoter) merging(ctx context.Context, branch string, base gitsource.ObjectID, at, request state, by gitsource.Person, reason string) (draft, error) {
	changes, conflicts, err := p.merge(ctx, base, at, request.id)
	if err != nil {
		return draft{}, err
	}
	if len(conflicts) > 0 {
		return draft{}, &ConflictError{Branch: branch, Conflicts: conflicts}
	}
	subject, block, err := p.trailersOf(ctx, base, request.id)
	if err != nil {
		return draft{}, err
	}
	text := fmt.Sprintf("Merge %s: %s\n", branch, subject)
	if reason != "" {
		text += "\n" + strings.TrimSpace(reason) + "\n"
	}
	return draft{changes: changes, message: trailer.Append(text, block), author: by}, nil
}

// trailersOf joins the trailers of a request's own commits; the newest line for an image wins.
func (p *Promoter) trailersOf(ctx context.Context, base, head gitsource.ObjectID) (subject string, block trailer.Block, err error) {
	seen := map[[3]string]bool{}
	id := head
	for n := 0; id != base && n < maxRequest; n++ {
		commit, err := p.repo.CommitOf(ctx, id)
		if err != nil {
			return "", trailer.Block{}, err
		}
		if subject == "" {
			subject, _, _ = strings.Cut(strings.TrimSpace(commit.Message), "\n")
		}
		b := trailer.Parse(commit.Message)
		for _, c := range b.Changes {
			repository, _, _ := strings.Cut(c.Image, "@")
			if key := [3]string{c.App, c.Environment, repository}; !seen[key] {
				seen[key] = true
				block.Changes = append(block.Changes, c)
			}
		}
		block.Reverts = append(block.Reverts, b.Reverts...)
		block.Irreversible = block.Irreversible || b.Irreversible
		if block.Verdict == "" {
			block.Verdict = b.Verdict
		}
		if len(commit.Parents) != 1 {
			break // behind a merge of the tip stands what was replaced
		}
		id = commit.Parents[0]
	}
	return subject, block, nil
}

// pushMerge makes the commit, checks what it says and pushes it, or has the host merge.
func (p *Promoter) pushMerge(ctx context.Context, branch string, at, request state, d draft, check func(at, merged state) error) (Result, error) {
	id, err := p.write(d, at.id, request.id)
	if err != nil {
		return Result{}, err
	}
	merged, err := p.stateAt(ctx, id)
	if err != nil {
		return Result{}, err
	}
	if err := check(at, merged); err != nil {
		return Result{}, err
	}
	result := Result{Commit: id, Branch: short(p.ref), Direct: true}
	if p.merger != nil && p.requests != nil {
		asked, err := p.newest(ctx, branch)
		if err != nil {
			return Result{}, fmt.Errorf("branch %s: its pull request cannot be looked up (merge again): %w", branch, err)
		}
		if asked.open() {
			merged, err := p.merger.Merge(ctx, asked.Number, request.id)
			result.Commit, result.URL = merged.Merge, asked.URL
			return result, err
		}
	}
	return result, p.repo.Push(ctx, p.ref, at.id, id)
}

// checkMerged refuses a merge that brings in an image that is held afterwards
// too. A request that lifts a Hold takes it out of the file, so the merge does.
func checkMerged(at, merged state, env, app string) error {
	e, err := merged.environment(env)
	if err != nil {
		return err
	}
	holds, err := merged.holds(env, app)
	if err != nil || holds.Empty() {
		return err
	}
	after, err := merged.images(e.AppPath(app))
	if err != nil {
		return err
	}
	stood := map[string]bool{}
	if before, err := at.images(e.AppPath(app)); err == nil {
		for _, i := range before {
			stood[i.Digest] = true
		}
	}
	for _, i := range after {
		if hold, held := holds.Find("", i.Digest); held && !stood[i.Digest] {
			return &HeldError{App: app, Environment: env, Hold: hold}
		}
	}
	return nil
}

// dropBranch deletes a merged branch. One that moved meanwhile is a new request and stays.
func (p *Promoter) dropBranch(ctx context.Context, branch string, at gitsource.ObjectID) error {
	err := p.repo.Push(ctx, "refs/heads/"+branch, at, "")
	if err == nil || errors.Is(err, gitsource.ErrMoved) || errors.Is(err, gitsource.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("branch %s: merged, but not deleted (merge again to delete it): %w", branch, err)
}
