package reconciler

import (
	"errors"
	"net/url"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/gitsource"
)

// How many sources are fetched at one time. Of one host it is half, so that a host that hangs leaves
// room for others; and of sources there that failed the last time only few, so that those leave room for good ones.
const (
	fetches        = 32
	fetchesOfHost  = fetches / 2
	doubtfulOfHost = 2
	fetchTimeout   = 10 * time.Minute       // of one fetch, with all that it downloads
	turn           = 200 * time.Millisecond // after which who found no room asks again
	mostDoublings  = 10
)

// hosts keeps sources from slowing each other down.
type hosts struct {
	mu     sync.Mutex
	byName map[string]*host
	failed map[types.NamespacedName]int // how often in a row
}

type host struct {
	busy, doubtful int
	until          time.Time // it wants to be left alone
}

func newHosts() *hosts {
	return &hosts{byName: map[string]*host{}, failed: map[types.NamespacedName]int{}}
}

// hostOf is where a URL leads; the empty name for a URL that cannot be parsed.
func hostOf(raw string) string {
	parsed, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return parsed.Host
}

// enter lets a source be fetched, or says how long to wait before asking again. Whoever is let in calls leave.
func (h *hosts) enter(name types.NamespacedName, at string, now time.Time) (leave func(error), wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there := h.byName[at]
	if there == nil {
		there = &host{}
		h.byName[at] = there
	}
	doubtful := h.failed[name] > 0
	switch {
	case now.Before(there.until):
		return nil, there.until.Sub(now)
	case there.busy >= fetchesOfHost, doubtful && there.doubtful >= doubtfulOfHost:
		return nil, turn
	}
	there.busy++
	if doubtful {
		there.doubtful++
	}
	return func(err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		there.busy--
		if doubtful {
			there.doubtful--
		}
		var busy *gitsource.BusyError
		if errors.As(err, &busy) {
			there.until = now.Add(busy.After)
		}
		if err == nil {
			delete(h.failed, name)
			return
		}
		h.failed[name] = min(h.failed[name]+1, mostDoublings)
	}, 0
}

// again is how long to wait after the failures so far: twice as long each time, but no longer than between two looks.
func (h *hosts) again(name types.NamespacedName, interval time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait := retrySource
	for range h.failed[name] - 1 {
		wait *= 2
	}
	return min(wait, max(interval, retrySource))
}

// forget is for sources that are gone.
func (h *hosts) forget(name types.NamespacedName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.failed, name)
}
