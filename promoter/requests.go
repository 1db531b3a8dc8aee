package promoter

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// refusedBefore fails with *ClosedError where a person closed the newest request for
// just these images, also if its branch is gone since. Who asks again by hand is not stopped.
func (p *Promoter) refusedBefore(ctx context.Context, w wish) error {
	if p.requests == nil || w.again {
		return nil
	}
	branch := RequestBranch(w.env.Name, w.app)
	newest, err := p.newest(ctx, branch)
	if err != nil {
		return fmt.Errorf("branch %s: its pull requests cannot be looked up (promote again): %w", branch, err)
	}
	if !newest.Closed || newest.Head == "" {
		return nil
	}
	closed, err := p.stateAt(ctx, newest.Head)
	if err != nil {
		return nil //nolint:nilerr // nobody has that commit any more, so nobody knows what it asked for
	}
	images, err := closed.images(w.env.AppPath(w.app))
	if err != nil {
		return nil //nolint:nilerr // it asked for nothing that could be read
	}
	for _, i := range w.images {
		if find(images, i.Name).Digest != i.Digest {
			return nil
		}
	}
	return &ClosedError{Branch: branch, URL: newest.URL}
}

// newest returns the newest pull request of a branch; its Number is 0 if there never was one.
func (p *Promoter) newest(ctx context.Context, branch string) (PullRequest, error) {
	for r, err := range p.requests.Of(ctx, branch) {
		return r, err
	}
	return PullRequest{}, nil
}

// open reports whether the request waits for people.
func (r PullRequest) open() bool { return r.Number != 0 && !r.Closed && !r.Merged }

// openOnHost makes or updates the pull request of a branch that asks for a
// promotion, and returns its URL; empty where the host has none.
func (p *Promoter) openOnHost(ctx context.Context, at state, w wish, head gitsource.ObjectID) (string, error) {
	if p.requests == nil {
		return "", nil
	}
	branch := RequestBranch(w.env.Name, w.app)
	text, err := p.describe(ctx, at, w.env, w.app, head)
	if err != nil {
		return "", fmt.Errorf("branch %s: pushed, but not described (promote again): %w", branch, err)
	}
	opened, err := p.requests.Open(ctx, branch, text.Title(), text.Body())
	if err != nil {
		return "", fmt.Errorf("branch %s: pushed, but its pull request is not open (promote again): %w", branch, err)
	}
	return opened.URL, nil
}

// Describe makes the pull request of an app's branch say what merging it changes, and opens one if there is none and open
// is true. It is for branches that were pushed by somebody who tells the host nothing. False says that there is none: the
// branch is gone or merged, a person has closed its request, or open is false. A branch whose request was merged on the
// host is deleted, as Merge does it: after a squash nobody else could tell that it asks for nothing any more.
func (p *Promoter) Describe(ctx context.Context, env, app string, open bool) (PullRequest, bool, error) {
	if p.requests == nil || checkNames(app, env) != nil {
		return PullRequest{}, false, checkNames(app, env)
	}
	at, err := p.tip(ctx)
	if err != nil {
		return PullRequest{}, false, err
	}
	wanted, err := at.environment(env)
	if err != nil {
		return PullRequest{}, false, err
	}
	branch := RequestBranch(env, app)
	request, found, err := p.stateOf(ctx, "refs/heads/"+branch)
	if err != nil || !found {
		return PullRequest{}, false, err
	}
	base, err := p.repo.MergeBase(ctx, at.id, request.id)
	if errors.Is(err, gitsource.ErrNotFound) || base == request.id {
		return PullRequest{}, false, nil // no request could merge it, or one has
	}
	if err != nil {
		return PullRequest{}, false, err
	}
	newest, err := p.newest(ctx, branch)
	if err == nil && newest.Merged && newest.Head == request.id {
		return PullRequest{}, false, p.dropBranch(ctx, branch, request.id)
	}
	if err != nil || !newest.open() && (!open || newest.Head == request.id) {
		return PullRequest{}, false, err
	}
	text, err := p.describe(ctx, at, wanted, app, request.id)
	if err != nil {
		return PullRequest{}, false, fmt.Errorf("branch %s: not described: %w", branch, err)
	}
	newest, err = p.requests.Open(ctx, branch, text.Title(), text.Body())
	return newest, err == nil, err
}

// openRevert makes the pull request of a revert that waits for a person. One that is open stays as it is.
func (p *Promoter) openRevert(ctx context.Context, branch, message string) (string, error) {
	if p.requests == nil {
		return "", nil
	}
	before, err := p.newest(ctx, branch)
	if err == nil && before.open() {
		return before.URL, nil
	}
	var opened PullRequest
	if err == nil {
		title, body := revertText(message)
		opened, err = p.requests.Open(ctx, branch, title, body)
	}
	if err != nil {
		return "", fmt.Errorf("branch %s: pushed, but its pull request is not open (the request is sent again): %w", branch, err)
	}
	return opened.URL, nil
}

// describe collects what a request changes. Only the files have to be readable; what
// else cannot be found out, the text says.
func (p *Promoter) describe(ctx context.Context, at state, env environment.Environment, app string, head gitsource.ObjectID) (RequestText, error) {
	folder := env.AppPath(app)
	text := RequestText{App: app, Environment: env.Name, Branch: RequestBranch(env.Name, app), Into: short(p.ref)}
	request, err := p.stateAt(ctx, head)
	if err != nil {
		return text, err
	}
	base, err := p.baseOf(ctx, at, request)
	if err != nil {
		return text, err
	}
	var images [3][]edit.Image
	for i, s := range []state{base, at, request} {
		images[i], err = s.images(folder)
		if err != nil && i > 0 { // at the base, the app may not have been there
			return text, err
		}
	}
	if text.Lifted, err = lifted(base, at, request, env.Name, app); err != nil {
		return text, err
	}
	of := func(string) origin { return origin{} }
	if known, err := p.pastOf(ctx, head); err == nil {
		of = known.origin
	}
	for _, i := range images[2] {
		old := find(images[1], i.Name)
		if old == i || find(images[0], i.Name) == i {
			continue // the tip may have gone on: what the request does not touch, its merge does not
		}
		from, to := of(old.Digest), of(i.Digest)
		image := ImageText{Change: edit.ImageChange{Before: old, After: i}, Source: to.Source, Run: to.Run, Trace: to.Trace}
		if p.runURL != nil && to.Run != "" {
			image.RunURL = p.runURL(to.Run)
		}
		text.Images = append(text.Images, image)
		if c, tell := p.between(ctx, from, to); tell && !slices.ContainsFunc(text.Commits, func(o CommitsText) bool { return o.URL == c.URL && o.From == c.From && o.To == c.To }) {
			text.Commits = append(text.Commits, c)
		}
	}
	text.Diff, text.DiffNote = p.rendered(ctx, base, request, folder)
	return text, nil
}

// baseOf returns what a request was made from.
func (p *Promoter) baseOf(ctx context.Context, at, request state) (state, error) {
	id, err := p.repo.MergeBase(ctx, at.id, request.id)
	if err != nil {
		return state{}, err
	}
	return p.stateAt(ctx, id)
}

// lifted returns the Holds that the request takes out and that still stand.
func lifted(base, at, request state, env, app string) ([]environment.Hold, error) {
	var holds [3]environment.Holds
	for i, s := range []state{base, at, request} {
		var err error
		if holds[i], err = s.holds(env, app); err != nil {
			return nil, err
		}
	}
	var out []environment.Hold
	for _, h := range holds[0].All() {
		_, stands := holds[1].Find(h.Image, h.Digest)
		_, stays := holds[2].Find(h.Image, h.Digest)
		if stands && !stays {
			out = append(out, h)
		}
	}
	return out, nil
}

// rendered shows what the request's own commits change in the cluster.
func (p *Promoter) rendered(ctx context.Context, base, request state, folder string) (diff, note string) {
	if p.diff == nil {
		return "", ""
	}
	diff, err := p.diff.Rendered(ctx, folder, base.snapshot(), request.snapshot())
	switch {
	case err != nil:
		return "", err.Error()
	case diff == "":
		return "", "it renders to the same objects"
	}
	return diff, ""
}

// between returns the commits between two versions of a source; false where nobody says what the source is.
func (p *Promoter) between(ctx context.Context, from, to origin) (CommitsText, bool) {
	url, newest, ok := to.source()
	if !ok || p.sources == nil {
		return CommitsText{}, false
	}
	text := CommitsText{URL: url, To: newest}
	oldURL, oldest, ok := from.source()
	switch {
	case !ok:
		text.Unknown = "nothing says what the image that stands now was built from"
		return text, true
	case oldURL != url:
		text.Unknown = "the image that stands now was built from " + oldURL
		return text, true
	case oldest == newest:
		return text, false
	}
	text.From = oldest
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	if err := p.readBetween(ctx, &text); err != nil {
		text.Unknown = "the source repository did not tell: " + unwrapped(err)
	}
	return text, true
}

func (p *Promoter) readBetween(ctx context.Context, text *CommitsText) error {
	history, err := p.sources.History(ctx, text.URL)
	if err != nil {
		return err
	}
	base, err := history.MergeBase(ctx, text.From, text.To)
	if err != nil {
		return err
	}
	added, err := history.Log(ctx, text.To, maxHistory)
	if err != nil {
		return err
	}
	text.Added, text.More = without(added, base)
	if base == text.From {
		return nil
	}
	removed, err := history.Log(ctx, text.From, maxHistory)
	if err != nil {
		return err
	}
	var more bool
	text.Removed, more = without(removed, base)
	text.More = text.More || more
	return nil
}

// without returns the commits of a log that base does not reach; true if the log ends before base.
func without(log []gitsource.Commit, base gitsource.ObjectID) ([]gitsource.Commit, bool) {
	reached := map[gitsource.ObjectID]bool{base: true}
	var out []gitsource.Commit
	found := false
	for _, c := range log { // newest first: children before their parents
		if !reached[c.ID] {
			out = append(out, c)
			continue
		}
		found = found || c.ID == base
		for _, id := range c.Parents {
			reached[id] = true
		}
	}
	// A side branch that both have may have been met before base was.
	return slices.DeleteFunc(out, func(c gitsource.Commit) bool { return reached[c.ID] }), !found
}

// unwrapped is the cause without what was being done, which names addresses of the server's own.
func unwrapped(err error) string {
	for _, known := range []error{gitsource.ErrNotFound, gitsource.ErrUnreachable, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "it cannot be read"
}
