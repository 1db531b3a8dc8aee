package promoter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// Announcement is what people hear of a revert.
type Announcement struct {
	Revert   gitsource.ObjectID
	Requests []PullRequest // that brought in what was taken back; each has a comment now
	Statuses []SourceStatus
}

// SourceStatus is what to say at a commit of a source repository: it failed in an Environment.
type SourceStatus struct {
	URL         string // of the repository, as trailers have it: post only where it is configured
	Commit      gitsource.ObjectID
	Context     string // "slipway/production"
	Description string // at most 140 characters
	Target      string // URL of the pull request that tells more; may be empty
}

// AnnounceReverts announces all reverts on the followed branch that are newer than
// since, which may be empty; not more than the last 50 commits are looked at.
func (p *Promoter) AnnounceReverts(ctx context.Context, since gitsource.ObjectID) ([]Announcement, error) {
	h, err := p.tipPast(ctx)
	if err != nil {
		return nil, err
	}
	var out []Announcement
	var failed []error
	for i := range h.line[:min(len(h.line), recent)] {
		if h.line[i].ID == since {
			break
		}
		a, err := p.announce(ctx, h, i)
		if err != nil {
			failed = append(failed, err)
		} else if len(a.Requests)+len(a.Statuses) > 0 {
			out = append(out, a)
		}
	}
	return out, errors.Join(failed...)
}

// AnnounceRevert comments on the pull requests whose images a commit of the followed
// branch took back, once each however often it is called, and returns what to say at the
// source commits. It goes by what the files said before and after, so that a person's
// git revert is announced like an agent's. A commit that takes nothing back announces nothing.
func (p *Promoter) AnnounceRevert(ctx context.Context, commit gitsource.ObjectID) (Announcement, error) {
	h, err := p.tipPast(ctx)
	if err != nil {
		return Announcement{}, err
	}
	at := slices.IndexFunc(h.line, func(c gitsource.Commit) bool { return c.ID == commit })
	if at < 0 {
		return Announcement{}, fmt.Errorf("commit %s: not among the last %d of %s: %w", commit.Short(), maxHistory, short(p.ref), gitsource.ErrNotFound)
	}
	return p.announce(ctx, h, at)
}

func (p *Promoter) tipPast(ctx context.Context) (*past, error) {
	at, err := p.tip(ctx)
	if err != nil {
		return nil, err
	}
	return p.pastOf(ctx, at.id)
}

// takenBack is one image that a commit took back.
type takenBack struct {
	env, app string
	step     step // of the revert
	promoted step // that brought it in; zero if that is too long ago
}

func (p *Promoter) announce(ctx context.Context, h *past, at int) (Announcement, error) {
	a := Announcement{Revert: h.line[at].ID}
	taken, err := p.takenBack(ctx, h, at)
	if err != nil {
		return a, fmt.Errorf("revert %s: %w", a.Revert.Short(), err)
	}
	for _, t := range taken {
		request, found, err := p.requestOf(ctx, t)
		if err != nil {
			return a, fmt.Errorf("revert %s: %w", a.Revert.Short(), err)
		}
		if found {
			if err := p.requests.Comment(ctx, request.Number, t.key(a.Revert), t.comment()); err != nil {
				return a, fmt.Errorf("revert %s: not announced at %s: %w", a.Revert.Short(), request.URL, err)
			}
			a.Requests = append(a.Requests, request)
		}
		if url, commit, ok := h.origin(t.step.Before.Digest).source(); ok {
			a.Statuses = append(a.Statuses, SourceStatus{
				URL: url, Commit: commit, Context: "slipway/" + t.env, Target: request.URL,
				Description: oneLine(visible(fmt.Sprintf("Rolled back in %s: %s", t.env, t.why())), 140),
			})
		}
	}
	return a, nil
}

// key tells the comment about it from others.
func (t takenBack) key(revert gitsource.ObjectID) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(revert), t.env, t.app}, " ")))
	return "revert-" + hex.EncodeToString(sum[:16])
}

// takenBack compares the files before and after a commit of the line.
func (p *Promoter) takenBack(ctx context.Context, h *past, at int) ([]takenBack, error) {
	if at+1 >= len(h.line) {
		return nil, nil // before it there was nothing, or nobody knows what
	}
	after, err := h.state(ctx, at)
	if err != nil {
		return nil, err
	}
	before, err := h.state(ctx, at+1)
	if err != nil {
		return nil, err
	}
	delivery, err := after.delivery()
	if err != nil {
		return nil, nil //nolint:nilerr // without environments there are no promotions to take back
	}
	changes, _, err := revert.Merge(before.tree, before.tree, after.tree, func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	var out []takenBack
	for _, place := range places(delivery, changes) {
		env, err := delivery.Find(place[0])
		if err != nil {
			return nil, err
		}
		found, err := h.stepsBack(ctx, env.AppPath(place[1]), before, h.line[at].ID)
		if err != nil {
			return nil, err
		}
		for _, t := range found {
			t.env, t.app = place[0], place[1]
			out = append(out, t)
		}
	}
	return out, nil
}

// places returns the Environments and apps that changes touch, in order.
func places(delivery environment.Delivery, changes []gitsource.Change) [][2]string {
	found := map[[2]string]bool{}
	for _, c := range changes {
		for _, env := range delivery.Environments {
			if app, ok := env.AppOf(c.Path); ok {
				found[[2]string{env.Name, app}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
}

// stepsBack returns the images below folder that a commit put back to what they were before.
func (h *past) stepsBack(ctx context.Context, folder string, before state, commit gitsource.ObjectID) ([]takenBack, error) {
	entries, err := before.images(folder)
	if err != nil {
		return nil, nil //nolint:nilerr // what could not be read, no agent ran
	}
	var out []takenBack
	for _, entry := range entries {
		steps, err := h.steps(ctx, folder, entry.Name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(steps, func(s step) bool { return s.Commit.ID == commit })
		if i < 0 || steps[i].Before.Digest == "" || steps[i].forward(steps[i+1:]) || !stood(steps[i+1:], steps[i].After) {
			continue
		}
		t := takenBack{step: steps[i]}
		for _, s := range steps[i+1:] {
			if s.After.Digest == t.step.Before.Digest {
				t.promoted = s
				break
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// requestOf returns the pull request that brought in what was taken back.
func (p *Promoter) requestOf(ctx context.Context, t takenBack) (PullRequest, bool, error) {
	if p.requests == nil || t.promoted.Commit.ID == "" {
		return PullRequest{}, false, nil
	}
	merge := t.promoted.Commit
	for r, err := range p.requests.Of(ctx, RequestBranch(t.env, t.app)) {
		if err != nil {
			return PullRequest{}, false, err
		}
		byHead := r.Head != "" && len(merge.Parents) > 1 && slices.Contains(merge.Parents[1:], r.Head)
		if r.Merge == merge.ID || byHead {
			return r, true, nil
		}
	}
	return PullRequest{}, false, nil
}

// why is the verdict, or who did it.
func (t takenBack) why() string {
	if verdict := trailer.Parse(t.step.Commit.Message).Verdict; verdict != "" {
		return verdict
	}
	subject, _, _ := strings.Cut(strings.TrimSpace(t.step.Commit.Message), "\n")
	return t.step.Commit.Author.Name + ": " + subject
}

func (t takenBack) comment() string {
	c := t.step.Commit
	var b strings.Builder
	fmt.Fprintf(&b, "**Rolled back in %s.** %s\n\n", t.env, code(t.why(), maxLocation))
	fmt.Fprintf(&b, "- commit %s of %s, %s\n", code(string(c.ID), maxLocation), code(c.Author.Name, maxName), stamp(c.Committer.When))
	fmt.Fprintf(&b, "- taken out: %s\n", version(t.step.Before))
	fmt.Fprintf(&b, "- stands again: %s\n", version(t.step.After))
	fmt.Fprintf(&b, "\n<details>\n<summary>What the commit says</summary>\n\n%s\n</details>\n\n", quoted(c.Message))
	fmt.Fprintf(&b, "No build brings that digest back. A fix goes its usual way; to bring back the same digest, promote it by hand (%s).\n", code("slipway promote "+t.app+" --env "+t.env, maxLocation))
	return b.String()
}
