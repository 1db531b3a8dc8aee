package wire

import (
	"net/http"
	"sync/atomic"
	"time"
)

// tolerated is how far this machine's clock may be from the API server's before it is set: the server tells whole seconds.
const tolerated = 2 * time.Second

// clusterClock is this machine's clock, set by what the API server says that time is. When a Rollout, a hook or an apply began
// stands in the status, and is read by whichever agent goes on: after a takeover that is one on another machine. Two
// clocks an hour apart would have a new version judged an hour too soon, and reverted.
type clusterClock struct {
	machine func() time.Time
	off     atomic.Int64 // nanoseconds that the API server is ahead
}

func (c *clusterClock) now() time.Time { return c.machine().Add(time.Duration(c.off.Load())) }

// heard takes over the time of an answer that was just received. An answer that took long is old news, and changes nothing.
func (c *clusterClock) heard(date string, took time.Duration) {
	at, err := http.ParseTime(date)
	if err != nil || took > tolerated {
		return
	}
	off := at.Add(time.Second / 2).Sub(c.machine()) // the server cuts off what is below a second
	switch {
	case off.Abs() <= tolerated:
		c.off.Store(0)
	case (off - time.Duration(c.off.Load())).Abs() > tolerated:
		c.off.Store(int64(off))
	}
}

// around returns a transport that listens to what the API server says.
func (c *clusterClock) around(next http.RoundTripper) http.RoundTripper { return listening{c, next} }

type listening struct {
	clock *clusterClock
	next  http.RoundTripper
}

// RoundTrip reads the date of each answer.
func (l listening) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	answer, err := l.next.RoundTrip(r)
	if err == nil {
		l.clock.heard(answer.Header.Get("Date"), time.Since(began))
	}
	return answer, err
}
