package reconciler

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Two who heal the same field would go on for ever. When that was undone some times in a row the object is left alone for
// a while, longer each time, and the other manager is named.
const (
	contestedAfter = 3
	contestedFirst = time.Minute
	contestedMost  = time.Hour
	// inARow is how soon a healing must be undone to count as undone by somebody who will do so again.
	inARow = 10 * time.Minute
)

// contest is the healing of one object. It is kept in memory: after a restart it counts anew.
type contest struct {
	healed int // in a row
	last   time.Time
	until  time.Time // left alone until then
	what   string    // differs, and who did it
}

// contested lists the objects that are left alone now.
func (p *pass) contested() map[manifests.Ref]bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	now := p.r.Now()
	alone := map[manifests.Ref]bool{}
	for ref, c := range p.r.contests[p.app.Name] {
		end := c.last
		if c.until.After(end) {
			end = c.until
		}
		switch {
		case c.until.After(now):
			alone[ref] = true
		case now.Sub(end) > inARow:
			delete(p.r.contests[p.app.Name], ref)
		}
	}
	return alone
}

// leave reports whether an object that has drifted is left alone from now on, because healing it was undone in a row.
func (p *pass) leave(ref manifests.Ref) bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	c := p.r.contests[p.app.Name][ref]
	// Each time that it is left alone counts as one round: healed after that, and undone, it is left alone for longer.
	if c == nil || c.healed < contestedAfter || !c.until.Before(c.last) {
		return false
	}
	c.until = p.r.Now().Add(min(contestedFirst<<min(c.healed-contestedAfter, 10), contestedMost))
	return true
}

// healed counts what was healed. What the API server refused does not count: nobody has undone that.
func (p *pass) healed(changes []Change) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	for _, change := range changes {
		if !change.Drift {
			continue
		}
		all := p.r.contests[p.app.Name]
		if all == nil {
			all = map[manifests.Ref]*contest{}
			p.r.contests[p.app.Name] = all
		}
		if all[change.Ref] == nil {
			all[change.Ref] = &contest{}
		}
		all[change.Ref].healed++
		all[change.Ref].last = p.r.Now()
	}
}

// contend takes the objects out of todo that are left alone from now on, by planning again. It reports whether it did.
func (p *pass) contend(ctx context.Context, todo plan.Plan) bool {
	again := false
	for _, action := range todo.Actions() {
		if !action.Drift || action.Object == nil || !p.leave(action.Ref) {
			continue
		}
		again = true
		what := p.r.Judge.Explain(ctx, action.Object)
		p.r.mu.Lock()
		c := p.r.contests[p.app.Name][action.Ref]
		c.what = what
		until := c.until
		p.r.mu.Unlock()
		p.event(corev1.EventTypeWarning, v1alpha1.ReasonContested, "%s: %s; healing was undone %d times in a row; it is left alone until %s. "+
			"Leave the field to the other manager by spec.ignore, or stop that one", action.Ref, what, contestedAfter, until.UTC().Format(time.RFC3339))
	}
	return again
}

// tellContested says in the condition Drifted what is left alone, and comes back when that ends.
func (p *pass) tellContested() {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	var all []string
	now := p.r.Now()
	for ref, c := range p.r.contests[p.app.Name] {
		if left := c.until.Sub(now); left > 0 {
			all = append(all, ref.String()+": "+c.what)
			if p.later == 0 || left < p.later {
				p.later = left
			}
		}
	}
	if len(all) > 0 {
		slices.Sort(all)
		p.app.Status.Drift = append(p.app.Status.Drift, all...)
		conditions.MarkTrue(p.app, v1alpha1.ConditionDrifted, v1alpha1.ReasonContested, "healing was undone again and again: %s", strings.Join(all, "; "))
	}
}
