package console

import (
	"context"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/gitsource"
)

// Poller publishes a nudge when a branch of a repository has moved. It is for
// Git hosts that tell nobody about pushes.
type Poller struct {
	URL   string
	Refs  Refs
	Hub   *Hub
	Every time.Duration // between two looks, give or take a fifth
	Log   logr.Logger
	// Wait is the clock; default the real one. It returns early with the context's error.
	Wait func(ctx context.Context, d time.Duration) error
}

// longest is the most that a Poller waits for a host that does not answer.
const longest = time.Minute

// Run looks until ctx ends.
func (p Poller) Run(ctx context.Context) {
	wait := p.Wait
	if wait == nil {
		wait = pause
	}
	var last map[string]gitsource.ObjectID
	failures := 0
	for ctx.Err() == nil {
		refs, err := p.Refs.Refs(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if failures == 0 {
				p.Log.Error(err, "repository cannot be read; trying again", "url", p.URL)
			}
			failures++
		default:
			if failures > 0 {
				p.Log.Info("repository can be read again", "url", p.URL)
			}
			failures = 0
			p.compare(last, refs)
			last = maps.Clone(refs)
		}
		d := min(p.Every<<min(failures, 10), max(longest, p.Every))
		if wait(ctx, spread(d)) != nil {
			return
		}
	}
}

// compare publishes what differs; the first look has nothing to compare with.
func (p Poller) compare(last, refs map[string]gitsource.ObjectID) {
	if last == nil {
		return
	}
	for ref, id := range refs {
		if strings.HasPrefix(ref, "refs/heads/") && last[ref] != id {
			p.Hub.Publish(Nudge{URL: p.URL, Ref: ref})
		}
	}
}

// spread keeps several servers from asking in step.
func spread(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.4*float64(d)) //nolint:gosec // not a secret
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
