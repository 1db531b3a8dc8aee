package promoter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// HoldRequest asks to keep digests out of an Environment, or to let them in again.
type HoldRequest struct {
	App, Environment string
	// Digest, "sha256:..."; empty means those that stand there now (Hold) or all that are held (Unhold).
	Digest string
	// Image names Digest for people, without tag; empty takes the name from the kustomization.
	Image  string
	Author gitsource.Person
	Reason string
}

func (r HoldRequest) check() error {
	err := errors.Join(checkNames(r.App, r.Environment), checkPerson(r.Author))
	if r.Digest != "" {
		err = errors.Join(err, environment.CheckDigest(r.Digest))
	}
	return err
}

// Hold writes a Hold. A digest that is held already is NoChange.
func (p *Promoter) Hold(ctx context.Context, r HoldRequest) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	if r.Reason == "" {
		return Result{}, errors.New("hold: a reason is missing; who meets the hold will ask")
	}
	return p.editHolds(ctx, r, "Hold", func(at state, env environment.Environment, holds environment.Holds) (environment.Holds, error) {
		entries, err := at.images(env.AppPath(r.App))
		if err != nil {
			return holds, err
		}
		targets := map[string]string{} // image by digest
		for _, i := range entries {
			if i.Digest != "" && (r.Digest == "" || r.Digest == i.Digest) {
				targets[i.Digest] = i.Repository()
			}
		}
		if r.Digest != "" && r.Image != "" {
			targets[r.Digest] = r.Image
		} else if r.Digest != "" && targets[r.Digest] == "" && len(entries) == 1 {
			targets[r.Digest] = entries[0].Repository()
		}
		if len(targets) == 0 {
			return holds, fmt.Errorf("%s: no digest to hold there (name image and digest)", env.AppPath(r.App))
		}
		for digest, image := range targets {
			if _, held := holds.Find("", digest); !held {
				holds = holds.With(environment.Hold{Image: image, Digest: digest, Reason: r.Reason, Since: p.now(), By: r.Author.Name})
			}
		}
		return holds, nil
	})
}

// Unhold removes Holds. Nothing held is NoChange.
func (p *Promoter) Unhold(ctx context.Context, r HoldRequest) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	return p.editHolds(ctx, r, "Unhold", func(_ state, _ environment.Environment, holds environment.Holds) (environment.Holds, error) {
		for _, h := range holds.All() {
			if r.Digest == "" || h.Digest == r.Digest {
				holds = holds.Without(h.Image, h.Digest)
			}
		}
		return holds, nil
	})
}

func (p *Promoter) editHolds(ctx context.Context, r HoldRequest, verb string, edit func(state, environment.Environment, environment.Holds) (environment.Holds, error)) (Result, error) {
	return p.retry(ctx, func(ctx context.Context) (Result, error) {
		at, err := p.tip(ctx)
		if err != nil {
			return Result{}, err
		}
		env, err := at.environment(r.Environment)
		if err != nil {
			return Result{}, err
		}
		before, err := at.holds(env.Name, r.App)
		if err != nil {
			return Result{}, err
		}
		after, err := edit(at, env, before)
		if err != nil {
			return Result{}, err
		}
		d := draft{author: r.Author, message: withReason(fmt.Sprintf("%s %s in %s", verb, r.App, env.Name), r.Reason)}
		if string(before.Bytes()) != string(after.Bytes()) {
			d.changes = []gitsource.Change{setHolds(env.Name, r.App, after)}
		}
		return p.commitAndPush(ctx, at, d)
	})
}

// Freeze stops promotions into env until a time.
func (p *Promoter) Freeze(ctx context.Context, env string, until time.Time, by gitsource.Person, reason string) (Result, error) {
	if !until.After(p.now()) {
		return Result{}, fmt.Errorf("freeze of %q: %s is over already (name a later time)", env, until.Format(time.RFC3339))
	}
	if reason == "" {
		return Result{}, errors.New("freeze: a reason is missing; who meets the freeze will ask")
	}
	content := environment.Freeze{Until: until, Reason: reason, By: by.Name}.Bytes()
	subject := fmt.Sprintf("Freeze %s until %s", env, until.UTC().Format(time.RFC3339))
	return p.setFreeze(ctx, env, content, by, withReason(subject, reason))
}

// Unfreeze lets promotions into env again. No Freeze is NoChange.
func (p *Promoter) Unfreeze(ctx context.Context, env string, by gitsource.Person, reason string) (Result, error) {
	return p.setFreeze(ctx, env, nil, by, withReason("Unfreeze "+env, reason))
}

// setFreeze writes the file, or removes it where content is nil.
func (p *Promoter) setFreeze(ctx context.Context, name string, content []byte, by gitsource.Person, message string) (Result, error) {
	if err := errors.Join(environment.CheckName("environment", name), checkPerson(by)); err != nil {
		return Result{}, err
	}
	return p.retry(ctx, func(ctx context.Context) (Result, error) {
		at, err := p.tip(ctx)
		if err != nil {
			return Result{}, err
		}
		env, err := at.environment(name)
		if err != nil {
			return Result{}, err
		}
		path := environment.FreezePath(env.Name)
		before, found, err := at.file(path)
		if err != nil {
			return Result{}, err
		}
		d := draft{author: by, message: message}
		if found != (content != nil) || string(before) != string(content) {
			d.changes = []gitsource.Change{{Path: path, Content: content, Delete: content == nil}}
		}
		return p.commitAndPush(ctx, at, d)
	})
}

func withReason(subject, reason string) string {
	if reason == "" {
		return subject + "\n"
	}
	return subject + "\n\n" + reason + "\n"
}
