package run

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// dispatcher decides which of the Jobs that may be claimed workers hear of. Only a small window is published at a
// time, repositories take turns, so that a thousand Jobs of one do not stand in the way of another's first.
type dispatcher struct {
	window int
	again  time.Duration // a hint that led to nothing for so long is given again

	mu      sync.Mutex
	ready   map[string]*hint // by key
	pending []string         // keys, in the order in which they became ready
	last    string           // repository that had the last turn
}

type hint struct {
	repo    string
	attempt int       // that came before: a hint for one attempt is none for the next
	at      time.Time // zero if it was not given yet
}

func newDispatcher(window int, again time.Duration) *dispatcher {
	return &dispatcher{window: window, again: again, ready: map[string]*hint{}}
}

// set says which Jobs of a Run may be claimed now, with the number of their last attempts; all its others may not.
func (d *dispatcher) set(run, repo string, jobs map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, h := range d.ready {
		if r, job := splitKey(key); r == run {
			if attempt, ok := jobs[job]; !ok || attempt != h.attempt {
				delete(d.ready, key)
			}
		}
	}
	d.pending = slices.DeleteFunc(d.pending, func(key string) bool { return d.ready[key] == nil })
	for _, job := range slices.Sorted(maps.Keys(jobs)) {
		if key := jobKey(run, job); d.ready[key] == nil {
			d.ready[key] = &hint{repo: repo, attempt: jobs[job]}
			d.pending = append(d.pending, key)
		}
	}
}

// pick returns the keys to publish now and counts them as published.
func (d *dispatcher) pick(now time.Time) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	given := 0
	for key, h := range d.ready {
		if h.at.IsZero() {
			continue
		}
		given++
		if now.Sub(h.at) >= d.again {
			h.at = now
			out = append(out, key)
		}
	}
	slices.Sort(out)
	for ; given < d.window && len(d.pending) > 0; given++ {
		key := d.turn()
		d.ready[key].at = now
		out = append(out, key)
	}
	return out
}

// turn takes the oldest key of the repository that follows the one that had the last turn.
func (d *dispatcher) turn() string {
	best := 0
	for i, key := range d.pending {
		if d.before(d.ready[key].repo, d.ready[d.pending[best]].repo) {
			best = i
		}
	}
	key := d.pending[best]
	d.pending = slices.Delete(d.pending, best, best+1)
	d.last = d.ready[key].repo
	return key
}

// before orders names as a circle that begins behind last.
func (d *dispatcher) before(a, b string) bool {
	if behindA, behindB := a > d.last, b > d.last; behindA != behindB {
		return behindA
	}
	return a < b
}

// failed says that a key could not be published.
func (d *dispatcher) failed(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.ready[key]; h != nil && !h.at.IsZero() {
		h.at = time.Time{}
		d.pending = append(d.pending, key)
	}
}
