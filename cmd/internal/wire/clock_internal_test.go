package wire

import (
	"net/http"
	"testing"
	"time"
)

// The API server's time counts wherever this machine's is another one, whichever way, and whatever happens to either of them.
func TestClusterClock(t *testing.T) {
	machine := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := &clusterClock{machine: func() time.Time { return machine }}
	for _, step := range []struct {
		what   string
		moved  time.Duration // of this machine's clock
		date   string        // that the server sends
		took   time.Duration
		behind time.Duration // what is wanted: the server is ahead by that
	}{
		{"nothing heard yet", 0, "", 0, 0},
		{"as it should be", 0, "Fri, 02 Jan 2026 03:04:05 GMT", 0, 0},
		{"a second off is none", 0, "Fri, 02 Jan 2026 03:04:06 GMT", 0, 0},
		{"an hour behind", 0, "Fri, 02 Jan 2026 04:04:05 GMT", 0, time.Hour},
		{"still, within what the server cuts off", 0, "Fri, 02 Jan 2026 04:04:06 GMT", 0, time.Hour},
		{"old news", 0, "Fri, 02 Jan 2026 03:04:05 GMT", time.Minute, time.Hour},
		{"no date", 0, "yesterday", 0, time.Hour},
		{"set right by somebody", time.Hour, "Fri, 02 Jan 2026 04:04:05 GMT", 0, 0},
		{"ahead now", 24 * time.Hour, "Fri, 02 Jan 2026 04:04:05 GMT", 0, -24 * time.Hour},
	} {
		machine = machine.Add(step.moved)
		c.heard(step.date, step.took)
		if got := c.now().Sub(machine); (got - step.behind).Abs() > time.Second {
			t.Errorf("%s: this machine is taken to be %s behind, want %s", step.what, got, step.behind)
		}
	}
}

type answering struct{ date string }

func (a answering) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Date": {a.date}}, Body: http.NoBody}, nil
}

func TestClusterClockListens(t *testing.T) {
	machine := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := &clusterClock{machine: func() time.Time { return machine }}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://server/", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.around(answering{"Fri, 02 Jan 2026 05:04:05 GMT"}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if got := c.now(); got.Hour() != 5 {
		t.Errorf("it is %s", got)
	}
}
