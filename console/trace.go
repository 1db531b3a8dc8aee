package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
)

// RunFinder looks Runs up. builder.ErrNotFound says that there is definitely no such Run.
type RunFinder interface {
	Runs(ctx context.Context, filter builder.RunFilter) ([]builder.Run, error)
	Run(ctx context.Context, id string) (builder.Run, error)
}

// mostMade bounds the Runs that are looked up because of one link of a chain.
const mostMade = 20

// WithRuns adds the Runs to in that a subject is about, and those that its chain
// names or whose images it brings: no others are asked for. After an error, what
// was found until then is there.
func WithRuns(ctx context.Context, in *chain.In, subject string, runs RunFinder) error {
	f := finder{runs: runs, in: in, known: map[string]bool{}, asked: map[string]bool{}}
	for _, run := range in.Runs {
		f.known[run.ID] = true
	}
	if err := f.about(ctx, subject); err != nil {
		return err
	}
	// What a Run has built leads to commits, and they may name more Runs. Each round asks for something new or is the last.
	for range 5 {
		before := len(f.asked)
		for _, stage := range chain.Of(*in, subject) {
			if err := f.named(ctx, stage); err != nil {
				return err
			}
		}
		if len(f.asked) == before {
			return nil
		}
	}
	return nil
}

// finder asks for each thing once.
type finder struct {
	runs  RunFinder
	in    *chain.In
	known map[string]bool // ids of Runs
	asked map[string]bool
}

func (f *finder) add(runs ...builder.Run) {
	for _, run := range runs {
		if !f.known[run.ID] {
			f.known[run.ID] = true
			f.in.Runs = append(f.in.Runs, run)
		}
	}
}

// about looks for the Runs that a subject is itself a name of.
func (f *finder) about(ctx context.Context, subject string) error {
	switch {
	case strings.HasPrefix(subject, "sha256:"):
		return f.filter(ctx, subject, builder.RunFilter{Digest: subject})
	case len(subject) == 32 && isHex(subject):
		return f.filter(ctx, subject, builder.RunFilter{Trace: subject})
	}
	id, err := gitsource.ParseObjectID(subject)
	if err != nil {
		return f.run(ctx, subject)
	}
	if slices.ContainsFunc(f.in.Commits, func(c chain.Commit) bool { return c.ID == id }) {
		return nil // of the environment repo
	}
	return f.filter(ctx, subject, builder.RunFilter{Commit: id})
}

// named looks for the Runs that a link of the chain names.
func (f *finder) named(ctx context.Context, stage chain.Stage) error {
	switch stage.Stage {
	case "run":
		return f.run(ctx, stage.ID)
	case "promoted":
		if _, digest, found := strings.Cut(stage.ID, "@"); found {
			return f.filter(ctx, digest, builder.RunFilter{Digest: digest})
		}
	}
	return nil
}

func (f *finder) run(ctx context.Context, id string) error {
	odd := strings.ContainsFunc(id, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
	if id == "" || odd || f.known[id] || f.asked[id] {
		return nil
	}
	f.asked[id] = true
	run, err := f.runs.Run(ctx, id)
	if errors.Is(err, builder.ErrNotFound) {
		return nil
	}
	if err == nil {
		f.add(run)
	}
	return err
}

func (f *finder) filter(ctx context.Context, key string, filter builder.RunFilter) error {
	for _, run := range f.in.Runs {
		for _, job := range run.Jobs {
			for _, image := range job.Images {
				f.asked[image.Digest] = true // its Run is known
			}
		}
	}
	if f.asked[key] {
		return nil
	}
	f.asked[key] = true
	filter.Limit = mostMade
	runs, err := f.runs.Runs(ctx, filter)
	if err == nil {
		f.add(runs...)
	}
	return err
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// TracedRepo is an environment repo whose chains are told.
type TracedRepo struct {
	URL    string
	Branch string
	Repo   EnvironmentRepo
}

// Chains is the Tracer of a server: it knows Git and the Runs. What clusters did
// with a commit stands in their Applications, which only `slipway trace` can read.
type Chains struct {
	Repos []TracedRepo
	Runs  RunFinder // nil if nothing is built here
	Limit int       // of the newest commits that are searched; 500 if 0
}

// Trace returns the chain of a subject in the repos that know it.
func (c Chains) Trace(ctx context.Context, subject string) ([]chain.Stage, error) {
	if _, digest, found := strings.Cut(subject, "@"); found {
		subject = digest
	}
	var stages []chain.Stage
	told := map[chain.Stage]bool{} // two repos tell the same of a Run
	for _, r := range c.Repos {
		in, err := History(ctx, r.Repo, r.Branch, nil, or(c.Limit, 500))
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", r.URL, err)
		}
		if c.Runs != nil {
			if err := WithRuns(ctx, &in, subject, c.Runs); err != nil {
				return nil, fmt.Errorf("runs: %w", err)
			}
		}
		for _, stage := range chain.Of(in, subject) {
			if !told[stage] {
				told[stage] = true
				stages = append(stages, stage)
			}
		}
	}
	slices.SortStableFunc(stages, func(a, b chain.Stage) int { return a.At.Compare(b.At) })
	return stages, nil
}
