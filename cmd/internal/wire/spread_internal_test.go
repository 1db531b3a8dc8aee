package wire

import (
	"context"
	"net/http"
	"testing"
	"time"
)

type refusing struct{ after string }

func (r refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {r.after}}, Body: http.NoBody}, nil
}

// What the API server turns away comes back spread, and not after its caller has given up.
func TestSpread(t *testing.T) {
	ask := func(ctx context.Context, after string) time.Duration {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://server/", nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		answer, err := spread{refusing{after}}.RoundTrip(request)
		if err != nil || answer.StatusCode != http.StatusTooManyRequests {
			t.Fatalf("%v, %v", answer, err)
		}
		_ = answer.Body.Close()
		return time.Since(began)
	}
	for _, none := range []string{"", "0", "-1", "soon"} {
		if took := ask(t.Context(), none); took > time.Second {
			t.Errorf("%q: held for %s", none, took)
		}
	}
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if took := ask(given, "999999999999"); took > time.Second {
		t.Errorf("nobody waits any more, and it is held for %s", took)
	}
	held := map[time.Duration]bool{}
	for range 5 {
		took := ask(t.Context(), "1")
		if took > 2*time.Second {
			t.Errorf("held for %s", took)
		}
		held[took.Round(time.Millisecond)] = true
	}
	if len(held) < 2 {
		t.Errorf("all were held for the same time: %v", held)
	}
}
