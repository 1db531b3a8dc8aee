package promoter

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
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
	// Source, Run and Trace go into the trailers. Where Source and Run are empty, what earlier
	// commits say of the same digest is taken over, so that one trace leads through all Environments.
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
		edited, err := at.editing(env, r.App, images, r.Lift)
		if err != nil {
			return Result{}, err
		}
		word := p.wording(ctx, at.id, r)
		if env.By == environment.Commit || len(edited.changes) == 0 {
			return p.commitAndPush(ctx, at, word(edited))
		}
		return p.pushRequest(ctx, at, wish{env: env, app: r.App, images: images, fromTip: edited, word: word, again: true})
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
		out = append(out, aimed(entries, i))
	}
	return out, nil
}

// aimed makes an image, whose Name is a repository, a change of the entry that stands for it.
func aimed(entries []edit.Image, i edit.Image) edit.Image {
	repository := i.Name
	i.Name = entryOf(entries, repository)
	for _, e := range entries {
		if e.Name == i.Name && i.NewName == "" && e.Repository() != repository {
			i.NewName = repository
		}
	}
	return i
}

// entryOf returns the name of the entry that stands for repository: the one called that, the only one that is replaced by
// it, or the only one that is called like its last part, as "shop" stands for "registry.example/team/shop" whatever it
// was replaced by before. Else repository itself, for a new entry: manifests that name it in full need no other.
func entryOf(entries []edit.Image, repository string) string {
	ways := []func(e edit.Image) bool{
		func(e edit.Image) bool { return e.Name == repository },
		func(e edit.Image) bool { return e.NewName == repository },
		func(e edit.Image) bool { return e.Name == repository[strings.LastIndex(repository, "/")+1:] },
	}
	for _, fits := range ways {
		found := slices.DeleteFunc(slices.Clone(entries), func(e edit.Image) bool { return !fits(e) })
		switch len(found) {
		case 0:
		case 1:
			return found[0].Name
		default:
			return repository
		}
	}
	return repository
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

// promotion is what an edit changes: files, and for people the images.
type promotion struct {
	changes []gitsource.Change
	changed []edit.ImageChange
}

// editing computes a promotion; no changes if s says it already. A held digest is
// refused unless lift; the Holds on an image that gets another digest go.
func (s state) editing(env environment.Environment, app string, images []edit.Image, lift bool) (promotion, error) {
	path, content, err := s.kustomization(env.AppPath(app))
	if err != nil {
		return promotion{}, err
	}
	out, changed, err := edit.Images(content, images)
	if err != nil {
		return promotion{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(changed) == 0 {
		return promotion{}, nil
	}
	holds, err := s.holds(env.Name, app)
	if err != nil {
		return promotion{}, err
	}
	kept := holds
	for _, c := range changed {
		if hold, held := holds.Find("", c.After.Digest); held && !lift {
			return promotion{}, &HeldError{App: app, Environment: env.Name, Hold: hold}
		}
		for _, hold := range holds.All() {
			if c.After.Digest != "" && (hold.Digest == c.After.Digest || hold.Image == c.After.Repository() || hold.Image == c.Before.Repository()) {
				kept = kept.Without(hold.Image, hold.Digest)
			}
		}
	}
	done := promotion{changed: changed, changes: []gitsource.Change{{Path: path, Content: out}}}
	if len(kept.All()) != len(holds.All()) {
		done.changes = append(done.changes, setHolds(env.Name, app, kept))
	}
	return done, nil
}

// RequestBranch is the branch of a promotion request, without refs/heads/.
func RequestBranch(env, app string) string { return "promote/" + env + "/" + app }

// wish is what a promotion request asks for.
type wish struct {
	env     environment.Environment
	app     string
	images  []edit.Image
	fromTip promotion // what they change at the tip
	word    func(promotion) draft
	again   bool // also where a person closed the request for just this
}

// pushRequest puts the promotion on its branch. An open request goes forward: by
// a commit on top, or where that would conflict with the tip, by a merge of the
// tip with the edit as computed from the tip.
func (p *Promoter) pushRequest(ctx context.Context, at state, w wish) (Result, error) {
	branch := RequestBranch(w.env.Name, w.app)
	result := Result{Branch: branch}
	if err := p.refusedBefore(ctx, w); err != nil {
		return Result{}, err
	}
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
		result.Commit, err = p.write(w.word(w.fromTip), at.id)
	} else {
		result.Commit, err = p.forward(ctx, at, open, base, w)
	}
	if err != nil {
		return Result{}, err
	}
	result.NoChange = result.Commit == open.id
	if !result.NoChange {
		if err = p.repo.Push(ctx, "refs/heads/"+branch, open.id, result.Commit); err != nil {
			return result, err
		}
	}
	result.URL, err = p.openOnHost(ctx, at, w, result.Commit)
	return result, err
}

// forward returns a descendant of the open request that asks for images and merges into the tip.
func (p *Promoter) forward(ctx context.Context, at, open state, base gitsource.ObjectID, w wish) (gitsource.ObjectID, error) {
	takeTip := func() (gitsource.ObjectID, error) { return p.writeOn(at.id, w.word(w.fromTip), open.id, at.id) }
	if len(w.fromTip.changes) > 1 && base != at.id {
		return takeTip() // it removes Holds that the request, which is older, does not know
	}
	edited, err := open.editing(w.env, w.app, w.images, true) // Holds were checked at the tip
	if err != nil {
		return takeTip()
	}
	candidate := open.id
	if len(edited.changes) > 0 {
		if candidate, err = p.write(w.word(edited), open.id); err != nil {
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
