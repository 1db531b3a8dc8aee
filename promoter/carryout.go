package promoter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// Outcome is what became of a revert request.
type Outcome uint8

const (
	// Refused is the zero value: the request is not to be carried out, now or later.
	Refused Outcome = iota
	// Superseded says that the tip is another one by now: the agent computes and sends again.
	Superseded
	// Done says that Git shows the revert, or the branch on which it waits for a person.
	Done
)

func (o Outcome) String() string {
	return [...]string{"refused", "superseded", "done"}[min(o, Done)]
}

// CarriedOut is the answer to a revert request.
type CarriedOut struct {
	Outcome Outcome
	Reason  string             // for people; when Done only why Branch waits although the request was direct
	Commit  gitsource.ObjectID // of the revert, when Done
	Branch  string             // without refs/heads/, when Done
	URL     string             // of the pull request, where Branch waits for a person on a host that has them
	Pushed  bool               // by this call; false if it was there already
}

// RevertBranch is the branch on which a revert waits for a person, without refs/heads/.
func RevertBranch(env, app string) string { return "revert/" + env + "/" + app }

// clockSkew is how far an agent's clock may be ahead of the server's.
const clockSkew = 5 * time.Minute

// recent is how far back the tip's history is searched for a revert that landed already.
const recent = 50

// refusedError carries the reason for an Outcome Refused.
type refusedError struct{ error }

// CarryOut pushes the revert that a cluster's agent asks for, if the agent's key
// at the tip signed exactly this, the tip is still the one that it was computed
// on, and computing it here gives the same tree. The commit depends on nothing
// but the request, so that a request that is sent again pushes nothing. An error
// means that nobody knows (the Git host is down): send it again.
func (p *Promoter) CarryOut(ctx context.Context, r v1alpha1.RevertRequest) (CarriedOut, error) {
	done, err := p.carryOut(ctx, r)
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		return CarriedOut{Reason: refused.Error()}, nil
	case errors.Is(err, gitsource.ErrMoved):
		return CarriedOut{Outcome: Superseded, Reason: "another commit landed first"}, nil
	}
	return done, err
}

func (p *Promoter) carryOut(ctx context.Context, r v1alpha1.RevertRequest) (CarriedOut, error) {
	at, err := p.tip(ctx)
	if err != nil {
		return CarriedOut{}, err
	}
	facts, err := p.authentic(at, r)
	if err != nil {
		return CarriedOut{}, err
	}
	if gitsource.ObjectID(r.Tip) != at.id {
		return p.late(ctx, at, r, facts)
	}
	if err := p.ancestors(ctx, at.id, facts); err != nil {
		return CarriedOut{}, err
	}
	changes, err := p.undoing(ctx, at, r, facts)
	if err != nil {
		return CarriedOut{}, err
	}
	tree, err := p.repo.WriteTree(at.id, changes)
	if err != nil {
		return CarriedOut{}, err
	}
	if string(tree) != r.Tree {
		return CarriedOut{}, refusedError{fmt.Errorf("revert of %s: the merge gives tree %s here, the request says %s", r.Path, tree.Short(), r.Tree)}
	}
	if len(changes) == 0 {
		return CarriedOut{Outcome: Done, Commit: at.id, Branch: short(p.ref)}, nil
	}
	why := ""
	if r.Direct {
		done, err := p.pushRevert(ctx, short(p.ref), at.id, r, facts, at.id)
		if !errors.Is(err, gitsource.ErrProtected) {
			return done, err
		}
		why = fmt.Sprintf("the Git host does not let the server push to %s (merge it, or let the server push there)", short(p.ref))
	}
	done, err := p.waitingRevert(ctx, at.id, r, facts)
	if err == nil {
		done.Reason = why
		done.URL, err = p.openRevert(ctx, done.Branch, r.Message)
	}
	return done, err
}

// authentic checks who asks, when, and for which branch.
func (p *Promoter) authentic(at state, r v1alpha1.RevertRequest) (undo.Facts, error) {
	refuse := func(format string, args ...any) (undo.Facts, error) {
		return undo.Facts{}, refusedError{fmt.Errorf(format, args...)}
	}
	facts := FactsOf(r)
	if err := facts.Check(); err != nil {
		return refuse("revert request: %w", err)
	}
	// Where slipway.yaml does not know the environment, nothing tells the path of the Application.
	if env, err := at.environment(r.Environment); err == nil && r.Direct && strings.HasPrefix(env.AppPath(r.App), r.Path+"/") {
		return refuse("path %q: wider than %s, so a person has to decide and the request must not be direct", r.Path, env.AppPath(r.App))
	}
	path := environment.AgentKeyPath(r.Cluster)
	content, found, err := at.file(path)
	if err != nil {
		return undo.Facts{}, err
	}
	if !found {
		return refuse("%s: not there, so requests of cluster %q are not carried out (run slipway install)", path, r.Cluster)
	}
	key, err := undo.ParsePublicKey(content)
	if err != nil {
		return refuse("%s: %w", path, err)
	}
	if err := undo.Verify(key, r); err != nil {
		return refuse("%w", err)
	}
	if "refs/heads/"+r.Branch != p.ref || p.url != "" && r.URL != p.url {
		return refuse("revert request for %s of %s: this server writes to %s of %s", r.Branch, r.URL, short(p.ref), p.url)
	}
	if age := p.now().Sub(r.At.Time); age > p.maxAge || age < -clockSkew {
		return refuse("revert request of %s: older than %s or from the future (the agent makes a new one; check the clocks)", r.At.UTC().Format(time.RFC3339), p.maxAge)
	}
	for _, id := range []string{r.Tip, r.Failed, r.Healthy, r.Tree} {
		if _, err := gitsource.ParseObjectID(id); err != nil {
			return refuse("revert request: %w", err)
		}
	}
	return facts, nil
}

// FactsOf returns the Facts that a request was composed from.
func FactsOf(r v1alpha1.RevertRequest) undo.Facts {
	return undo.Facts{
		Cluster: r.Cluster, App: r.App, Environment: r.Environment, Path: r.Path, Wide: !r.Direct,
		Failed: gitsource.ObjectID(r.Failed), Healthy: gitsource.ObjectID(r.Healthy), Holds: r.Holds, At: r.At.Time,
	}
}

// ancestors refuses commits that the followed branch never had: a stolen key
// must not bring in what nobody merged.
func (p *Promoter) ancestors(ctx context.Context, tip gitsource.ObjectID, facts undo.Facts) error {
	for _, id := range []gitsource.ObjectID{facts.Failed, facts.Healthy} {
		base, err := p.repo.MergeBase(ctx, tip, id)
		if err != nil && !errors.Is(err, gitsource.ErrNotFound) {
			return err
		}
		if base != id {
			return refusedError{fmt.Errorf("commit %s: not in the history of %s", id.Short(), short(p.ref))}
		}
	}
	return nil
}

// undoing computes the changes as the agent did.
func (p *Promoter) undoing(ctx context.Context, at state, r v1alpha1.RevertRequest, facts undo.Facts) ([]gitsource.Change, error) {
	failed, err := p.stateAt(ctx, facts.Failed)
	if err != nil {
		return nil, err
	}
	healthy, err := p.stateAt(ctx, facts.Healthy)
	if err != nil {
		return nil, err
	}
	changes, err := undo.Changes(undo.Trees{Failed: failed.tree, Tip: at.tree, Healthy: healthy.tree}, facts, trailer.Parse(r.Message).Verdict)
	var conflict *undo.ConflictError
	if errors.As(err, &conflict) {
		return nil, refusedError{err}
	}
	return changes, err
}

// late answers a request for an older tip: Done if the revert landed already or
// the tip needs none, else Superseded. It never pushes.
func (p *Promoter) late(ctx context.Context, at state, r v1alpha1.RevertRequest, facts undo.Facts) (CarriedOut, error) {
	commits, err := p.repo.Log(ctx, at.id, recent)
	if err != nil {
		return CarriedOut{}, err
	}
	for _, c := range commits {
		if string(c.Tree) == r.Tree && c.Message == r.Message && slices.Equal(c.Parents, []gitsource.ObjectID{gitsource.ObjectID(r.Tip)}) {
			return CarriedOut{Outcome: Done, Commit: c.ID, Branch: short(p.ref)}, nil
		}
	}
	superseded := CarriedOut{Outcome: Superseded, Reason: fmt.Sprintf("the tip is %s, the request was computed on %.12s", at.id.Short(), r.Tip)}
	changes, err := p.undoing(ctx, at, r, facts)
	switch {
	case errors.As(err, new(refusedError)):
		return superseded, nil
	case err != nil:
		return CarriedOut{}, err
	case len(changes) == 0:
		return CarriedOut{Outcome: Done, Commit: at.id, Branch: short(p.ref)}, nil
	}
	return superseded, nil
}

// waitingRevert puts the revert on a branch for a person. A branch that is there
// already goes forward, never back.
func (p *Promoter) waitingRevert(ctx context.Context, tip gitsource.ObjectID, r v1alpha1.RevertRequest, facts undo.Facts) (CarriedOut, error) {
	branch := RevertBranch(r.Environment, r.App)
	open, found, err := p.stateOf(ctx, "refs/heads/"+branch)
	if err != nil {
		return CarriedOut{}, err
	}
	if !found {
		return p.pushRevert(ctx, branch, "", r, facts, tip)
	}
	commit, err := p.repo.CommitOf(ctx, open.id)
	if err != nil {
		return CarriedOut{}, err
	}
	if string(commit.Tree) == r.Tree && commit.Message == r.Message {
		return CarriedOut{Outcome: Done, Commit: open.id, Branch: branch}, nil
	}
	base, err := p.repo.MergeBase(ctx, tip, open.id)
	if err != nil {
		return CarriedOut{}, err
	}
	if base == open.id { // merged long ago
		return p.pushRevert(ctx, branch, open.id, r, facts, tip)
	}
	return p.pushRevert(ctx, branch, open.id, r, facts, tip, open.id)
}

// pushRevert makes the commit that the request alone determines and moves branch from old to it.
func (p *Promoter) pushRevert(ctx context.Context, branch string, old gitsource.ObjectID, r v1alpha1.RevertRequest, facts undo.Facts, parents ...gitsource.ObjectID) (CarriedOut, error) {
	who := undo.Author(facts)
	id, err := p.repo.Commit(gitsource.NewCommit{
		Parents: parents, Tree: gitsource.ObjectID(r.Tree), Message: r.Message, Author: who, Committer: who,
	})
	if err != nil {
		return CarriedOut{}, err
	}
	if err := p.repo.Push(ctx, "refs/heads/"+branch, old, id); err != nil {
		return CarriedOut{}, err
	}
	return CarriedOut{Outcome: Done, Commit: id, Branch: branch, Pushed: true}, nil
}
