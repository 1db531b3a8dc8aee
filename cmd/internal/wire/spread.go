package wire

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// longestSpread bounds what is added to what the API server asks for.
const longestSpread = 3 * time.Second

// spread keeps requests that the API server turned away, 429, from coming back all at once: it tells all of them the same
// second, and where it has few seats the same few would lose each time, until their patience ends.
type spread struct{ next http.RoundTripper }

// RoundTrip hands on such an answer after a while between nothing and what the server asks to wait.
func (s spread) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := s.next.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusTooManyRequests {
		return answer, err
	}
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if err != nil || seconds <= 0 {
		return answer, nil //nolint:nilerr // nobody will wait
	}
	most := min(time.Duration(min(seconds, 60))*time.Second, longestSpread)
	wait := time.NewTimer(rand.N(most)) //nolint:gosec // not a secret
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-r.Context().Done():
	}
	return answer, nil
}
