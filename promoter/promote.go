package promoter

import (
	"context"
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// Request asks for a Promotion.
type Request struct {
	App, Environment string
	// Images to set. A Name that no entry has but that is some entry's newName means that entry.
	Images []edit.Image
	// From is the Environment to copy from when Images is empty; default the one that Environment comes after.
	From   string
	Author gitsource.Person // When is the clock's
	Reason string           // for people; may be empty
	// Lift removes a Hold on what is promoted instead of being refused.
	Lift bool
	// Source, Run and Trace go into the trailers; each may be empty.
	Source, Run, Trace string
}

// Promote sets the images of an app in an Environment: by a commit on the
// followed branch, or by the branch promote/ENVIRONMENT/APP where the Environment
// asks for a request. It fails with *HeldError or *FrozenError where that stops it.
func (p *Promoter) Promote(ctx context.Context, r Request) (Result, error) {
	if err := checkNames(r.App, r.Environment); err != nil {
		return Result{}, err
	}
	if err := checkPerson(r.Author); err != nil {
		return Result{}, err
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
		if err := p.checkFreeze(at, env.Name); err != nil {
			return Result{}, err
		}
		images, err := at.wanted(env, r)
		if err != nil {
			return Result{}, err
		}
		d, err := at.promotion(env, r, images, r.Lift)
		if err != nil {
			return Result{}, err
		}
		if env.By == environment.Commit || len(d.changes) == 0 {
			return p.commitAndPush(ctx, at, d)
		}
		return p.pushRequest(ctx, at, env, r, images, d)
	})
}

// wanted resolves what to set in env.
func (s state) wanted(env environment.Environment, r Request) ([]edit.Image, error) {
	if len(r.Images) == 0 {
		return s.copied(env, r)
	}
	entries, err := s.images(env.AppPath(r.App))
	if err != nil {
		return nil, err
	}
	var out []edit.Image
	for _, i := range r.Images {
		if match := byNewName(entries, i.Name); match != "" {
			i.Name = match
		}
		out = append(out, i)
	}
	return out, nil
}

// byNewName returns the name of the only entry that is replaced by repository, if no entry is called that.
func byNewName(entries []edit.Image, repository string) string {
	match := ""
	for _, e := range entries {
		switch {
		case e.Name == repository:
			return ""
		case e.NewName == repository && match != "":
			return ""
		case e.NewName == repository:
			match = e.Name
		}
	}
	return match
}

// copied returns the images of the Environment that r or the order names.
func (s state) copied(env environment.Environment, r Request) ([]edit.Image, error) {
	name := r.From
	if name == "" && len(env.After) == 1 {
		name = env.After[0]
	}
	if name == "" {
		return nil, fmt.Errorf("environment %q: comes after %d environments, so it is not clear what to promote (name images or the environment to copy from)", env.Name, len(env.After))
	}
	from, err := s.environment(name)
	if err != nil {
		return nil, err
	}
	entries, err := s.images(from.AppPath(r.App))
	if err != nil {
		return nil, err
	}
	var out []edit.Image
	for _, e := range entries {
		if e.Digest != "" {
			e.NewTag = "" // the digest says it, a tag beside it says nothing
		}
		if e.Digest != "" || e.NewTag != "" {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: sets no digest or tag, so there is nothing to copy", from.AppPath(r.App))
	}
	return out, nil
}

// promotion computes the edit and its message; no changes if s says it already.
// A held digest is refused unless lift; the Holds on an image that gets another digest go.
func (s state) promotion(env environment.Environment, r Request, images []edit.Image, lift bool) (draft, error) {
	path, content, err := s.kustomization(env.AppPath(r.App))
	if err != nil {
		return draft{}, err
	}
	out, changed, err := edit.Images(content, images)
	if err != nil {
		return draft{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(changed) == 0 {
		return draft{}, nil
	}
	holds, err := s.holds(env.Name, r.App)
	if err != nil {
		return draft{}, err
	}
	kept := holds
	for _, c := range changed {
		if hold, held := holds.Find("", c.After.Digest); held && !lift {
			return draft{}, &HeldError{App: r.App, Environment: env.Name, Hold: hold}
		}
		for _, hold := range holds.All() {
			if c.After.Digest != "" && (hold.Digest == c.After.Digest || hold.Image == c.After.Repository() || hold.Image == c.Before.Repository()) {
				kept = kept.Without(hold.Image, hold.Digest)
			}
		}
	}
	d := draft{author: r.Author, message: message(r, changed), changes: []gitsource.Change{{Path: path, Content: out}}}
	if len(kept.All()) != len(holds.All()) {
		d.changes = append(d.changes, setHolds(env.Name, r.App, kept))
	}
	return d, nil
}

func message(r Request, changed []edit.ImageChange) string {
	var block trailer.Block
	var what []string
	for _, c := range changed {
		block.Changes = append(block.Changes, trailer.Change{
			App: r.App, Environment: r.Environment, Image: c.After.Reference(), Source: r.Source, Run: r.Run, Trace: r.Trace,
		})
		what = append(what, brief(c.After))
	}
	text := fmt.Sprintf("Promote %s to %s: %s\n", r.App, r.Environment, strings.Join(what, ", "))
	if r.Reason != "" {
		text += "\n" + strings.TrimSpace(r.Reason) + "\n"
	}
	return trailer.Append(text, block)
}

// brief names an image for a subject line: "shop@sha256:0123456789ab".
func brief(i edit.Image) string {
	base := i.Repository()[strings.LastIndex(i.Repository(), "/")+1:]
	if i.Digest != "" {
		return base + "@" + i.Digest[:len("sha256:")+12]
	}
	return base + ":" + i.NewTag
}

// RequestBranch is the branch of a promotion request, without refs/heads/.
func RequestBranch(env, app string) string { return "promote/" + env + "/" + app }

// pushRequest puts the promotion on its branch. An open request goes forward: by
// a commit on top, or where that would conflict with the tip, by a merge of the
// tip with the edit as computed from the tip.
func (p *Promoter) pushRequest(ctx context.Context, at state, env environment.Environment, r Request, images []edit.Image, fromTip draft) (Result, error) {
	branch := RequestBranch(env.Name, r.App)
	result := Result{Branch: branch}
	open, found, err := p.stateOf(ctx, "refs/heads/"+branch)
	if err != nil {
		return Result{}, err
	}
	base := open.id
	if found {
		if base, err = p.repo.MergeBase(ctx, at.id, open.id); err != nil {
			return Result{}, err
		}
	}
	if base == open.id { // no branch, or one that is merged
		result.Commit, err = p.write(fromTip, at.id)
	} else {
		result.Commit, err = p.forward(ctx, at, open, base, env, r, images, fromTip)
	}
	if err != nil {
		return Result{}, err
	}
	result.NoChange = result.Commit == open.id
	if !result.NoChange {
		err = p.repo.Push(ctx, "refs/heads/"+branch, open.id, result.Commit)
	}
	return result, err
}

// forward returns a descendant of the open request that asks for images and merges into the tip.
func (p *Promoter) forward(ctx context.Context, at, open state, base gitsource.ObjectID, env environment.Environment, r Request, images []edit.Image, fromTip draft) (gitsource.ObjectID, error) {
	takeTip := func() (gitsource.ObjectID, error) { return p.writeOn(at.id, fromTip, open.id, at.id) }
	if len(fromTip.changes) > 1 && base != at.id {
		return takeTip() // it removes Holds that the request, which is older, does not know
	}
	d, err := open.promotion(env, r, images, true) // Holds were checked at the tip
	if err != nil {
		return takeTip()
	}
	candidate := open.id
	if len(d.changes) > 0 {
		if candidate, err = p.write(d, open.id); err != nil {
			return "", err
		}
	}
	_, conflicts, err := p.merge(ctx, base, at, candidate)
	if err != nil {
		return "", err
	}
	if len(conflicts) > 0 {
		return takeTip()
	}
	return candidate, nil
}

// merge computes what merging the commit theirs changes in at.
func (p *Promoter) merge(ctx context.Context, base gitsource.ObjectID, at state, theirs gitsource.ObjectID) ([]gitsource.Change, []revert.Conflict, error) {
	from, err := p.stateAt(ctx, base)
	if err != nil {
		return nil, nil, err
	}
	to, err := p.stateAt(ctx, theirs)
	if err != nil {
		return nil, nil, err
	}
	return revert.Merge(from.tree, at.tree, to.tree, func(string) bool { return true })
}
