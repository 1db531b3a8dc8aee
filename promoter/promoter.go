// Package promoter writes to the environment repo: promotions and their
// requests, images that Runs built, rollbacks, Holds, Freezes, and the reverts that
// agents ask for. It tells people of requests and reverts where they look: at pull requests.
//
// Everything is computed from the tip and pushed by compare-and-swap; after a
// lost race it is computed again from the new tip, with its rules checked again.
// Nothing is ever force-pushed, and what the tip says already is not written twice.
package promoter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// Options configure a Promoter.
type Options struct {
	Repo   Repo
	Branch string // that is followed; default "main"
	// URL of the repo. If set, revert requests must name it.
	URL string
	// Tries bounds the attempts after lost races; default 10.
	Tries int
	// MaxAge bounds the age of a revert request; default 24 h. An agent makes a new one.
	MaxAge time.Duration
	// Writer is the author of what WriteBack commits; default "slipway-server <server@slipway.dev>".
	Writer gitsource.Person
	// Sources, if set, tells which of two builds has the newer source, and what was committed between them.
	Sources Sources
	// Requests, if set, makes a pull request of each promotion request. Without, the branch alone is the request.
	Requests Requests
	// Merger, if set, merges where there is an open pull request; without, the merge commit is pushed.
	Merger Merger
	// Diff, if set, renders what a pull request changes.
	Diff Diff
	// RunURL, if set, returns where people look at a run.
	RunURL func(run string) string
	// Now and Wait are the clock; default the real one. Wait returns early with the context's error.
	Now  func() time.Time
	Wait func(ctx context.Context, d time.Duration) error
}

// Promoter writes to one environment repo. It may be used from several goroutines if its Repo may.
type Promoter struct {
	repo   Repo
	ref    string
	url    string
	tries  int
	maxAge time.Duration
	writer gitsource.Person

	sources  Sources
	requests Requests
	merger   Merger
	diff     Diff
	runURL   func(run string) string

	now  func() time.Time
	wait func(ctx context.Context, d time.Duration) error
}

// New checks o.
func New(o Options) (*Promoter, error) {
	if o.Repo == nil {
		return nil, errors.New("promoter: Options.Repo is missing")
	}
	p := &Promoter{
		repo: o.Repo, ref: "refs/heads/main", url: o.URL, tries: 10, maxAge: 24 * time.Hour, now: time.Now, wait: sleep,
		writer: gitsource.Person{Name: "slipway-server", Email: "server@slipway.dev"}, sources: o.Sources, requests: o.Requests, merger: o.Merger, diff: o.Diff, runURL: o.RunURL,
	}
	if o.Writer.Name != "" {
		if err := checkPerson(o.Writer); err != nil {
			return nil, fmt.Errorf("promoter: Options.Writer: %w", err)
		}
		p.writer = o.Writer
	}
	if o.Branch != "" {
		p.ref = "refs/heads/" + o.Branch
	}
	if o.Tries > 0 {
		p.tries = o.Tries
	}
	if o.MaxAge > 0 {
		p.maxAge = o.MaxAge
	}
	if o.Now != nil {
		p.now = o.Now
	}
	if o.Wait != nil {
		p.wait = o.Wait
	}
	return p, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Result is what was done.
type Result struct {
	Commit gitsource.ObjectID // that was pushed; with NoChange the one that says it already
	Branch string             // that it was pushed to, without refs/heads/
	URL    string             // of the pull request, on a host that has them
	// Direct is true if Branch is the followed one; else a person merges Branch.
	Direct bool
	// NoChange is true if everything was there already and nothing was pushed.
	NoChange bool
}

// HeldError says that a Hold keeps an image out.
type HeldError struct {
	App, Environment string
	Hold             environment.Hold
}

func (e *HeldError) Error() string {
	by := e.Hold.By
	if by == "" {
		by = "unknown"
	}
	return fmt.Sprintf("%s@%s: held in %s for %s since %s by %s: %s (promote another digest, or lift the hold)", e.Hold.Image, e.Hold.Digest,
		e.Environment, e.App, e.Hold.Since.Format(time.RFC3339), by, e.Hold.Reason)
}

// FrozenError says that a Freeze stops promotions.
type FrozenError struct {
	Environment string
	Freeze      environment.Freeze
}

func (e *FrozenError) Error() string {
	return fmt.Sprintf("environment %q: frozen until %s by %s: %s (wait, or unfreeze it)", e.Environment, e.Freeze.Until.Format(time.RFC3339), e.Freeze.By, e.Freeze.Reason)
}

// ConflictError says that a request cannot be merged as it stands.
type ConflictError struct {
	Branch    string
	Conflicts []revert.Conflict // at least one
}

func (e *ConflictError) Error() string {
	parts := make([]string, 0, len(e.Conflicts))
	for _, c := range e.Conflicts {
		parts = append(parts, c.Path+" ("+c.Why+")")
	}
	return fmt.Sprintf("branch %s: conflicts with the tip in %s (promote again, or merge it by hand)", e.Branch, strings.Join(parts, ", "))
}

// ClosedError says that a person closed a request, which is an answer.
type ClosedError struct {
	Branch string
	URL    string // of the pull request
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("branch %s: a person closed %s, which asked for just this (promote by hand to ask again, or reopen it)", e.Branch, e.URL)
}

// retry runs attempt until it does not lose the race.
func (p *Promoter) retry(ctx context.Context, attempt func(ctx context.Context) (Result, error)) (Result, error) {
	for try := 1; ; try++ {
		result, err := attempt(ctx)
		if err == nil || !errors.Is(err, gitsource.ErrMoved) {
			return result, err
		}
		if try == p.tries {
			return Result{}, fmt.Errorf("%s: lost the race %d times (try again): %w", p.ref, try, err)
		}
		if err := p.wait(ctx, backoff(try)); err != nil {
			return Result{}, fmt.Errorf("%s: gave up after a lost race: %w", p.ref, err)
		}
	}
}

// backoff doubles from 50 ms to 2 s, of which a random half to whole is waited.
func backoff(try int) time.Duration {
	d := min(50*time.Millisecond<<min(try-1, 6), 2*time.Second)
	return d/2 + rand.N(d/2)
}

// draft is a commit that is not made yet.
type draft struct {
	changes []gitsource.Change
	message string
	author  gitsource.Person
}

// write makes the commit. The first parent is what the changes are made to.
func (p *Promoter) write(d draft, parents ...gitsource.ObjectID) (gitsource.ObjectID, error) {
	return p.writeOn(parents[0], d, parents...)
}

// writeOn makes a commit whose tree is base's with the changes.
func (p *Promoter) writeOn(base gitsource.ObjectID, d draft, parents ...gitsource.ObjectID) (gitsource.ObjectID, error) {
	tree, err := p.repo.WriteTree(base, d.changes)
	if err != nil {
		return "", err
	}
	d.author.When = p.now()
	return p.repo.Commit(gitsource.NewCommit{Parents: parents, Tree: tree, Message: d.message, Author: d.author, Committer: d.author})
}

// commitAndPush puts d on the followed branch. A draft without changes is NoChange.
func (p *Promoter) commitAndPush(ctx context.Context, at state, d draft) (Result, error) {
	result := Result{Commit: at.id, Branch: short(p.ref), Direct: true, NoChange: true}
	if len(d.changes) == 0 {
		return result, nil
	}
	id, err := p.write(d, at.id)
	if err != nil {
		return Result{}, err
	}
	if err := p.repo.Push(ctx, p.ref, at.id, id); err != nil {
		return Result{}, err
	}
	result.Commit, result.NoChange = id, false
	return result, nil
}

func short(ref string) string { return strings.TrimPrefix(ref, "refs/heads/") }

func checkNames(app, env string) error {
	return errors.Join(environment.CheckName("app", app), environment.CheckName("environment", env))
}

func checkPerson(who gitsource.Person) error {
	if who.Name == "" || who.Email == "" || strings.ContainsAny(who.Name+who.Email, "<>\n\x00") {
		return fmt.Errorf("author %q <%s>: want a name and an email (set user.name and user.email)", who.Name, who.Email)
	}
	return nil
}
