package promoter

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter/edit"
)

// note is what a commit message says of one app in one Environment.
type note struct {
	app, env string
	changed  []edit.ImageChange
	of       map[string]origin // by digest
}

// message is that of a promotion, for people first and then as trailers.
func message(reason string, notes ...note) string {
	var block trailer.Block
	var what []string
	var lines strings.Builder
	var apps, envs []string
	for _, n := range notes {
		for _, c := range n.changed {
			o := n.of[c.After.Digest]
			block.Changes = append(block.Changes, trailer.Change{
				App: n.app, Environment: n.env, Image: c.After.Reference(), Source: o.Source, Run: o.Run, Trace: o.Trace,
			})
			what = append(what, brief(c.After))
			fmt.Fprintf(&lines, "- %s to %s: %s\n", n.app, n.env, brief(c.After))
		}
		apps, envs = append(apps, n.app), append(envs, n.env)
	}
	text := fmt.Sprintf("Promote %s to %s: %s\n", strings.Join(apps, ", "), strings.Join(envs, ", "), strings.Join(what, ", "))
	if len(notes) > 1 {
		text = fmt.Sprintf("Promote %d images of %d apps to %s\n\n%s", len(what), distinct(apps), strings.Join(slices.Compact(slices.Sorted(slices.Values(envs))), ", "), lines.String())
	}
	if reason != "" {
		text += "\n" + strings.TrimSpace(reason) + "\n"
	}
	return trailer.Append(text, block)
}

func distinct(names []string) int {
	return len(slices.Compact(slices.Sorted(slices.Values(names))))
}

// brief names an image for a subject line: "shop@sha256:0123456789ab".
func brief(i edit.Image) string {
	base := i.Repository()[strings.LastIndex(i.Repository(), "/")+1:]
	switch {
	case i.Digest != "":
		return base + "@" + i.Digest[:min(len(i.Digest), len("sha256:")+12)]
	case i.NewTag != "":
		return base + ":" + i.NewTag
	}
	return base
}

// wording returns how a person's promotion is worded. Where the person does not say
// what an image was built from, the history may; it is a hint, so that reading it may fail.
func (p *Promoter) wording(ctx context.Context, at gitsource.ObjectID, r Request) func(promotion) draft {
	return func(e promotion) draft {
		if len(e.changes) == 0 {
			return draft{}
		}
		n := note{app: r.App, env: r.Environment, changed: e.changed, of: map[string]origin{}}
		var known *past
		if r.Source == "" && r.Run == "" {
			known, _ = p.pastOf(ctx, at)
		}
		for _, c := range e.changed {
			o := origin{Source: r.Source, Run: r.Run, Trace: r.Trace}
			if known != nil && c.After.Digest != "" {
				o = known.origin(c.After.Digest)
				if r.Trace != "" {
					o.Trace = r.Trace
				}
			}
			n.of[c.After.Digest] = o
		}
		return draft{changes: e.changes, author: r.Author, message: message(r.Reason, n)}
	}
}
