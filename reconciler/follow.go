package reconciler

import (
	"context"
	"errors"
	"fmt"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/follow"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// invalidError marks what only a change of the spec or of a Secret can mend.
type invalidError struct{ error }

// Unwrap returns the error.
func (e invalidError) Unwrap() error { return e.error }

// reasonOf says why a source is not Ready.
func reasonOf(err error) string {
	switch {
	case errors.As(err, new(invalidError)):
		return v1alpha1.ReasonSourceInvalid
	case errors.As(err, new(unverifiedError)):
		return v1alpha1.ReasonSourceUnverified
	case errors.Is(err, gitsource.ErrUnreachable):
		return v1alpha1.ReasonSourceUnreachable
	}
	return v1alpha1.ReasonSourceNotReady
}

// ruleOf is what the spec says to follow.
func ruleOf(src *v1alpha1.GitSource) follow.Rule {
	return follow.Rule{Branch: src.Spec.Branch, Tag: src.Spec.Tag, Semver: src.Spec.Semver, Commit: src.Spec.Commit}
}

// followed says where the source stands, for people.
func followed(src *v1alpha1.GitSource, revision gitsource.Revision) string {
	if src.Spec.Semver != "" {
		return ruleOf(src).String() + ": " + revision.Ref
	}
	return ruleOf(src).String()
}

// fetch finds out where the source stands and brings that commit, and whose signature it has where one is asked for.
func (r *SourceReconciler) fetch(ctx context.Context, src *v1alpha1.GitSource) (gitsource.Revision, error) {
	rule := ruleOf(src)
	if err := rule.Validate(); err != nil {
		return gitsource.Revision{}, invalidError{fmt.Errorf("gitsource %s: spec.%w", src.Name, err)}
	}
	repository, err := openSource(ctx, r.secrets, r.repositories, src)
	if err != nil {
		return gitsource.Revision{}, err
	}
	revision, err := stand(ctx, repository, src)
	if err != nil {
		return gitsource.Revision{}, err
	}
	revision.Signer, err = r.verify(ctx, src, repository, revision)
	return revision, err
}

// stand brings the commit where the source stands.
func stand(ctx context.Context, repository Repository, src *v1alpha1.GitSource) (gitsource.Revision, error) {
	rule := ruleOf(src)
	if rule.Commit == "" {
		return repository.FetchChosen(ctx, rule.Choose)
	}
	// A commit stays what it is: once it is here, the host is not asked any more.
	commit, err := repository.CommitOf(ctx, gitsource.ObjectID(rule.Commit))
	if err != nil {
		return gitsource.Revision{}, fmt.Errorf("commit %s of %s: %w", rule.Commit, src.Spec.URL, err)
	}
	return gitsource.Revision{URL: src.Spec.URL, ID: commit.ID}, nil
}

// mustHoldSource says why no revert can be pushed to what a source follows; empty if one can.
func mustHoldSource(src *v1alpha1.GitSource) string {
	rule := ruleOf(src)
	if rule.BranchName() == "" {
		return fmt.Sprintf("gitsource %s follows the %s, and reverts can only be pushed to a branch; let it follow a version that is good", src.Name, rule)
	}
	return ""
}
