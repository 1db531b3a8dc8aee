package gogit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

func TestHostsThatWantToBeLeftAlone(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) // on the host's clock
	const skew = 30 * time.Minute                      // that ours is ahead of it
	for _, c := range []struct {
		status int
		header string
		want   time.Duration // 0 for none
	}{
		{http.StatusTooManyRequests, "17", 17 * time.Second},
		{http.StatusServiceUnavailable, "120", 2 * time.Minute},
		{http.StatusTooManyRequests, now.Add(90 * time.Second).Format(http.TimeFormat), 90 * time.Second},
		{http.StatusTooManyRequests, "", time.Minute},
		{http.StatusTooManyRequests, "soon", time.Minute},
		{http.StatusTooManyRequests, "999999999", time.Hour},
		{http.StatusTooManyRequests, now.Add(-time.Hour).Format(http.TimeFormat), time.Second},
		{http.StatusServiceUnavailable, "", 0},
		{http.StatusBadGateway, "17", 0},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.header)
			w.Header().Set("Date", now.Format(http.TimeFormat))
			w.WriteHeader(c.status)
		}))
		s, err := gogit.Open(context.Background(), gogit.Options{Dir: t.TempDir(), URL: server.URL + "/x.git", Now: func() time.Time { return now.Add(skew) }})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Fetch(context.Background(), mainRef)
		var busy *gitsource.BusyError
		found := errors.As(err, &busy)
		if !errors.Is(err, gitsource.ErrUnreachable) || found != (c.want > 0) || found && (busy.After != c.want || !strings.HasPrefix(server.URL, "http://"+busy.Host)) {
			t.Errorf("%d %q: %v (%+v), want %s", c.status, c.header, err, busy, c.want)
		}
		server.Close()
	}
}
