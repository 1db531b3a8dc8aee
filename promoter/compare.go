package promoter

import (
	"context"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

// sourceTimeout bounds how long one question to a source repository may hold a batch up.
const sourceTimeout = 15 * time.Second

// comparison tells which of two builds is older, and remembers what one WriteBack has
// read for it: each question to a source, and the history of each commit, is asked
// once, also when a batch is tried again and for all apps of it.
type comparison struct {
	sources Sources
	bases   map[[3]string]gitsource.ObjectID
	silent  map[string]bool // repositories that did not answer
	pasts   map[gitsource.ObjectID]known
}

// known is a history, or why it cannot be read: a host that is down is waited for once.
type known struct {
	past *past
	err  error
}

func (p *Promoter) newComparison() *comparison {
	return &comparison{sources: p.sources, bases: map[[3]string]gitsource.ObjectID{}, silent: map[string]bool{}, pasts: map[gitsource.ObjectID]known{}}
}

// past returns the history of a commit of the environment repo.
func (c *comparison) past(ctx context.Context, p *Promoter, at gitsource.ObjectID) (*past, error) {
	k, asked := c.pasts[at]
	if !asked {
		k.past, k.err = p.pastOf(ctx, at)
		c.pasts[at] = k
	}
	return k.past, k.err
}

// older reports whether u was built from something older than what origin says, which stands since a time.
func (c *comparison) older(ctx context.Context, u Update, than origin, stands time.Time) (why string, older bool) {
	return builtBefore(u, than, c.base(ctx, u, than), stands)
}

// base returns the merge base of both sources; empty where that is not known.
func (c *comparison) base(ctx context.Context, u Update, than origin) gitsource.ObjectID {
	url, theirs, ok := than.source()
	mine := u.Image.Revision
	if !ok || c.sources == nil || url != mine.URL || mine.ID == "" || mine.ID == theirs || c.silent[url] {
		return ""
	}
	key := [3]string{url, string(mine.ID), string(theirs)}
	if base, known := c.bases[key]; known {
		return base
	}
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	history, err := c.sources.History(ctx, url)
	var base gitsource.ObjectID
	if err == nil {
		base, err = history.MergeBase(ctx, mine.ID, theirs)
	}
	if err != nil && ctx.Err() != nil {
		c.silent[url] = true // one wait is enough
	}
	if err != nil {
		base = "" // a rewritten history, or a host that is down: the runs tell
	}
	c.bases[key] = base
	return base
}
