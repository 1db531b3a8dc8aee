package promoter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// Update says that a Run built an image that is to go into an Environment.
type Update struct {
	App, Environment string
	// Image with the Revision that it was built from, whose URL and ID go into the trailers.
	Image builder.Image
	// Run is its id. Of two runs on lines of history that do not contain each other the greater id is the later.
	Run   string
	Trace string // may be empty
	// BuiltAt is when the Run began. What a person chooses later than that is not overwritten.
	BuiltAt time.Time
}

// WriteOutcome is what became of an Update.
type WriteOutcome uint8

const (
	// Unwritten is the zero value: nothing is known to be written, and Written.Err says why.
	Unwritten WriteOutcome = iota
	// Committed stands on the followed branch by this call.
	Committed
	// Requested waits on the request's branch for a person.
	Requested
	// Present says that the followed branch said it already.
	Present
	// Held is kept out by a Hold, or by a newer commit that took this digest out again.
	Held
	// Late is older than what stands there.
	Late
	// Frozen waits for Written.Until: send it again then.
	Frozen
)

func (o WriteOutcome) String() string {
	return [...]string{"unwritten", "committed", "requested", "present", "held", "late", "frozen"}[min(o, Frozen)]
}

// Written is the answer to an Update.
type Written struct {
	Update  Update
	Outcome WriteOutcome
	Reason  string             // for people, when Held, Late or Frozen
	Until   time.Time          // when Frozen
	Commit  gitsource.ObjectID // that says it, when Committed, Requested or Present
	Branch  string             // that Commit is on, without refs/heads/
	URL     string             // of the pull request, when Requested on a host that has them
	Err     error              // when Unwritten; others of the batch are not affected by it
}

// Again reports whether the same Update may have another outcome later without anybody
// changing a file of the environment repo: it is frozen, or hosts failed.
func (w Written) Again() bool {
	unfit := errors.As(w.Err, new(unfitError)) && !errors.Is(w.Err, gitsource.ErrUnreachable)
	return w.Outcome == Frozen || w.Outcome == Unwritten && w.Err != nil && !unfit
}

// unfitError says that an Update does not fit what the files say.
type unfitError struct{ error }

func (e unfitError) Unwrap() error { return e.error }

// WriteBack brings images that Runs built into their Environments: all that go by
// commit in one commit, the others each on the branch of its request. Everything is
// decided from the tip, again after each lost race, so that Updates may be delivered
// twice, late and in any order. The answers are in the order of updates; an error means that none was decided.
func (p *Promoter) WriteBack(ctx context.Context, updates []Update) ([]Written, error) {
	if len(updates) == 0 {
		return nil, nil
	}
	asking := p.newComparison()
	var batch *round
	result, err := p.retry(ctx, func(ctx context.Context) (Result, error) {
		batch = nil
		at, err := p.tip(ctx)
		if err != nil {
			return Result{}, err
		}
		delivery, err := at.delivery()
		if err != nil {
			return Result{}, err
		}
		batch = p.decide(ctx, at, delivery, updates, asking)
		return p.commitAndPush(ctx, at, p.writing(batch))
	})
	if batch == nil {
		return nil, err
	}
	for _, g := range batch.groups {
		switch {
		case g.env.By == environment.PullRequest:
			p.requestBack(ctx, g, batch.written, asking)
		case err != nil:
			g.fail(batch.written, err)
		default:
			g.land(batch.written, result)
		}
	}
	return batch.written, nil
}

// round is what one attempt decides.
type round struct {
	written []Written
	groups  []*group
}

func checkUpdate(u Update) error {
	err := errors.Join(checkNames(u.App, u.Environment), environment.CheckDigest(u.Image.Digest), edit.CheckName(u.Image.Repository))
	if u.BuiltAt.IsZero() {
		err = errors.Join(err, fmt.Errorf("update of %s: BuiltAt is missing", u.App))
	}
	return err
}

// decide judges all updates at a tip. Whatever is wrong with one app stays with it.
func (p *Promoter) decide(ctx context.Context, at state, delivery environment.Delivery, updates []Update, asking *comparison) *round {
	r := &round{written: make([]Written, len(updates))}
	byApp := map[[2]string]*group{}
	for i, u := range updates {
		r.written[i].Update = u
		env, err := delivery.Find(u.Environment)
		if err := errors.Join(checkUpdate(u), err); err != nil {
			r.written[i].Err = unfitError{err}
			continue
		}
		key := [2]string{u.Environment, u.App}
		if byApp[key] == nil {
			byApp[key] = &group{app: u.App, env: env}
		}
		byApp[key].indexes = append(byApp[key].indexes, i)
	}
	for _, key := range slices.SortedFunc(maps.Keys(byApp), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		g := byApp[key]
		r.groups = append(r.groups, g)
		if g.env.By == environment.PullRequest {
			continue // each has a branch of its own, and is decided when it is written
		}
		if err := p.settle(ctx, at, nil, g, r.written, asking); err != nil {
			g.fail(r.written, err)
		}
	}
	return r
}

// settle judges the Updates of a group and computes what changes at the tip. Those
// that are to be written have the outcome that they will have. An open request is
// a second thing that must not be moved back; nil where there is none.
func (p *Promoter) settle(ctx context.Context, at state, open *state, g *group, written []Written, asking *comparison) error {
	folder := g.env.AppPath(g.app)
	var err error
	if g.entries, err = at.images(folder); err != nil {
		return unfitError{err}
	}
	e := evidence{}
	if e.holds, err = at.holds(g.env.Name, g.app); err != nil {
		return unfitError{err}
	}
	if err := p.checkFreeze(at, g.env.Name); err != nil {
		frozen := (*FrozenError)(nil)
		if !errors.As(err, &frozen) {
			return unfitError{err}
		}
		e.freeze = &frozen.Freeze
	}
	candidates := map[string][]int{}
	for _, i := range g.indexes {
		w := &written[i]
		name := entryOf(g.entries, w.Update.Image.Repository)
		e.now = find(g.entries, name)
		j, decided := judgeNow(w.Update, e)
		if !decided {
			if j, err = p.askPast(ctx, at.id, folder, name, w.Update, asking); err != nil {
				return err
			}
		}
		if open != nil && j.outcome == Unwritten {
			if j, err = p.askRequest(ctx, *open, folder, w.Update, asking); err != nil {
				return err
			}
		}
		w.Outcome, w.Reason, w.Until = j.outcome, j.reason, j.until
		switch {
		case j.outcome == Present:
			w.Commit, w.Branch = p.cameIn(ctx, at, folder, name, asking), short(p.ref)
		case j.outcome == Unwritten:
			candidates[name] = append(candidates[name], i)
		}
	}
	g.choose(ctx, candidates, written, asking)
	if g.edited, err = at.editing(g.env, g.app, g.images(written), false); err != nil {
		return unfitError{err}
	}
	return nil
}

// askPast judges by the history of a branch.
func (p *Promoter) askPast(ctx context.Context, at gitsource.ObjectID, folder, name string, u Update, asking *comparison) (judgement, error) {
	known, err := asking.past(ctx, p, at)
	if err != nil {
		return judgement{}, err
	}
	h := history{}
	if h.steps, err = known.steps(ctx, folder, name); err != nil {
		return judgement{}, err
	}
	if !known.complete() {
		h.since = known.oldest().Committer.When
	}
	h.older = func(u Update, than origin) (string, bool) {
		var stands time.Time
		for _, s := range h.steps {
			if s.Build == than {
				stands = s.Commit.Committer.When
				break
			}
		}
		return asking.older(ctx, u, than, stands)
	}
	return judgePast(u, h), nil
}

// askRequest judges by what an open request asks for, and how it came to.
func (p *Promoter) askRequest(ctx context.Context, open state, folder string, u Update, asking *comparison) (judgement, error) {
	entries, err := open.images(folder)
	if err != nil {
		return judgement{}, nil //nolint:nilerr // a request that cannot be read is replaced by what the tip gives
	}
	name := entryOf(entries, u.Image.Repository)
	if find(entries, name).Digest == u.Image.Digest {
		return judgement{}, nil
	}
	return p.askPast(ctx, open.id, folder, name, u, asking)
}

// cameIn returns the commit that brought an entry to what it says; the tip where nobody knows.
func (p *Promoter) cameIn(ctx context.Context, at state, folder, name string, asking *comparison) gitsource.ObjectID {
	known, err := asking.past(ctx, p, at.id)
	if err != nil {
		return at.id
	}
	steps, err := known.steps(ctx, folder, name)
	if err != nil || len(steps) == 0 {
		return at.id
	}
	return steps[0].Commit.ID
}

// writing puts what all groups that go by commit change into one draft.
func (p *Promoter) writing(r *round) draft {
	var d draft
	var notes []note
	for _, g := range r.groups {
		if g.env.By != environment.Commit || len(g.chosen) == 0 {
			continue
		}
		d.changes = append(d.changes, g.edited.changes...)
		notes = append(notes, g.note(r.written))
	}
	if len(notes) > 0 {
		d.author, d.message = p.writer, message("", notes...)
	}
	return d
}

// requestBack puts the Updates of a group on the branch of its request.
func (p *Promoter) requestBack(ctx context.Context, g *group, written []Written, asking *comparison) {
	result, err := p.retry(ctx, func(ctx context.Context) (Result, error) {
		for _, i := range g.indexes {
			written[i] = Written{Update: written[i].Update}
		}
		at, err := p.tip(ctx)
		if err != nil {
			return Result{}, err
		}
		if g.env, err = at.environment(g.env.Name); err != nil {
			return Result{}, err
		}
		open, err := p.openRequest(ctx, at, g.env, g.app)
		if err != nil {
			return Result{}, err
		}
		if err := p.settle(ctx, at, open, g, written, asking); err != nil || len(g.chosen) == 0 {
			return Result{}, err
		}
		word := func(e promotion) draft {
			n := g.note(written)
			n.changed = e.changed
			return draft{changes: e.changes, author: p.writer, message: message("", n)}
		}
		if g.env.By == environment.Commit { // since a moment ago
			return p.commitAndPush(ctx, at, word(g.edited))
		}
		return p.pushRequest(ctx, at, wish{env: g.env, app: g.app, images: g.images(written), fromTip: g.edited, word: word})
	})
	closed := (*ClosedError)(nil)
	switch {
	case errors.As(err, &closed):
		for _, i := range g.indexes {
			if w := &written[i]; w.Outcome == Requested {
				w.Outcome, w.Reason = Held, closed.Error()
			}
		}
	case err != nil:
		g.fail(written, err)
	default:
		g.land(written, result)
	}
}

// openRequest returns what the request's branch says; nil if there is none that is not merged.
func (p *Promoter) openRequest(ctx context.Context, at state, env environment.Environment, app string) (*state, error) {
	open, found, err := p.stateOf(ctx, "refs/heads/"+RequestBranch(env.Name, app))
	if err != nil || !found {
		return nil, err
	}
	base, err := p.repo.MergeBase(ctx, at.id, open.id)
	if err != nil || base == open.id {
		return nil, err
	}
	return &open, nil
}
