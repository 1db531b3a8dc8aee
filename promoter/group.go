package promoter

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// group is the Updates of one app in one Environment.
type group struct {
	app     string
	env     environment.Environment
	indexes []int // into the Updates
	entries []edit.Image
	chosen  map[string]int // index of the Update to be written, by the name of the entry
	edited  promotion
}

// land says where what the group writes stands now.
func (g *group) land(written []Written, result Result) {
	for _, i := range g.indexes {
		if w := &written[i]; w.Outcome == Committed || w.Outcome == Requested {
			w.Commit, w.Branch, w.URL = result.Commit, result.Branch, result.URL
		}
	}
}

// fail gives all Updates of the group that are not decided yet the same error.
func (g *group) fail(written []Written, err error) {
	g.chosen = nil
	for _, i := range g.indexes {
		if w := &written[i]; w.Outcome == Unwritten || w.Outcome == Committed || w.Outcome == Requested {
			*w = Written{Update: w.Update, Err: err}
		}
	}
}

// images returns what the chosen Updates set, in the order of the entries' names.
func (g *group) images(written []Written) []edit.Image {
	var out []edit.Image
	for _, name := range slices.Sorted(maps.Keys(g.chosen)) {
		image := written[g.chosen[name]].Update.Image
		out = append(out, aimed(g.entries, edit.Image{Name: image.Repository, Digest: image.Digest}))
	}
	return out
}

// choose keeps the newest candidate of each entry. The order in which they came does not matter.
func (g *group) choose(ctx context.Context, candidates map[string][]int, written []Written, asking *comparison) {
	g.chosen = map[string]int{}
	for name, indexes := range candidates {
		slices.SortFunc(indexes, func(a, b int) int { return canonical(written[a].Update, written[b].Update) })
		best := indexes[0]
		for _, i := range indexes[1:] {
			u, b := written[i].Update, written[best].Update
			if _, older := asking.older(ctx, u, originOf(b), b.BuiltAt); !older {
				best = i
			}
		}
		g.chosen[name] = best
		for _, i := range indexes {
			w, b := &written[i], written[best].Update
			if w.Outcome = g.outcome(); w.Update.Image.Digest != b.Image.Digest {
				w.Outcome = Late
				w.Reason = fmt.Sprintf("%s: run %s brings %s at the same time, which is newer", w.Update.Image.Reference(), b.Run, b.Image.Reference())
			}
		}
	}
}

// outcome is that of what the group writes.
func (g *group) outcome() WriteOutcome {
	if g.env.By == environment.Commit {
		return Committed
	}
	return Requested
}

// canonical is a total order in which what sorts later is likely to be newer.
func canonical(a, b Update) int {
	return cmp.Or(
		a.BuiltAt.Compare(b.BuiltAt), strings.Compare(a.Run, b.Run), strings.Compare(a.Image.Digest, b.Image.Digest),
		strings.Compare(originOf(a).Source, originOf(b).Source), strings.Compare(a.Trace, b.Trace),
	)
}

func originOf(u Update) origin {
	o := origin{Run: u.Run, Trace: u.Trace}
	if u.Image.Revision.URL != "" && u.Image.Revision.ID != "" {
		o.Source = u.Image.Revision.URL + "@" + string(u.Image.Revision.ID)
	}
	return o
}

// note is what the message says of the group.
func (g *group) note(written []Written) note {
	n := note{app: g.app, env: g.env.Name, changed: g.edited.changed, of: map[string]origin{}}
	for _, i := range g.chosen {
		n.of[written[i].Update.Image.Digest] = originOf(written[i].Update)
	}
	return n
}
