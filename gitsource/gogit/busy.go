package gogit

import (
	"net/http"
	"strconv"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

const (
	busyFor     = time.Minute // where a host that sends 429 does not say how long
	longestBusy = time.Hour   // what a host may ask for
)

// polite turns the answers of a host that has had too much into errors that say when to come again
// (RFC 9110, 10.2.3); go-git would keep their status only.
type polite struct {
	next http.RoundTripper
	now  func() time.Time
}

// RoundTrip fails with gitsource.BusyError.
func (p polite) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := p.next.RoundTrip(request)
	if err != nil || (answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable) {
		return answer, err
	}
	now := p.now()
	if at, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		now = at // a date is one of the host's clock, which may be another
	}
	after, told := retryAfter(answer.Header.Get("Retry-After"), now)
	if !told && answer.StatusCode == http.StatusServiceUnavailable {
		return answer, nil // it is down, and does not know for how long
	}
	if !told {
		after = busyFor
	}
	_ = answer.Body.Close()
	return nil, &gitsource.BusyError{Host: request.URL.Host, After: min(max(after, time.Second), longestBusy)}
}

// retryAfter reads seconds or a date.
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return at.Sub(now), true
	}
	return 0, false
}
