package prom_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/prometheus"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/rollout/analysis"
	"github.com/slipway-cd/slipway/rollout/prom"
	"github.com/slipway-cd/slipway/rollout/web"
)

// shop is an application whose counters the test sets.
type shop struct {
	mu      sync.Mutex
	metrics string
	address string
}

func openShop(t *testing.T) *shop {
	s := &shop{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprint(w, s.metrics)
	}))
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	return s
}

func (s *shop) count(total, bad string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics = fmt.Sprintf(`# TYPE requests_total counter
requests_total{pod="a",code="200"} %s
requests_total{pod="a",code="500"} %s
# TYPE seconds histogram
seconds_bucket{pod="a",le="0.1"} %s
seconds_bucket{pod="a",le="0.25"} %s
seconds_bucket{pod="a",le="+Inf"} %s
seconds_sum{pod="a"} 5
seconds_count{pod="a"} 7
# TYPE level gauge
level NaN
`, total, bad, bad, total, total)
}

const (
	all      = `requests_total`
	bad      = `requests_total{code=~"5.."}`
	settling = 60 * time.Second
)

func source(t *testing.T, options prom.Options) *prom.Source {
	t.Helper()
	s, err := prom.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// scraped waits until the server shows counters of bad requests with that value.
func scraped(t *testing.T, s *prom.Source, want float64) analysis.Requests {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settling)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		requests, err := s.Requests(ctx, all, bad, time.Now())
		if err == nil && len(requests.Bad) == 1 && requests.Bad[`{code="500", instance="`+instance(requests)+`", job="test", pod="a"}`] == want {
			return requests
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v was not scraped: %+v, %v", want, requests, err)
		case <-tick.C:
		}
	}
}

func instance(r analysis.Requests) string {
	for series := range r.Bad {
		_, rest, _ := strings.Cut(series, `instance="`)
		name, _, _ := strings.Cut(rest, `"`)
		return name
	}
	return ""
}

// One story with one server: counters, buckets, a reset, values, a crash of the server, an outage.
func TestRealServer(t *testing.T) {
	pods := openShop(t)
	pods.count("100", "3")
	dir := t.TempDir()
	server, err := prometheus.Start(t.Context(), prometheus.Options{Dir: dir, Targets: []string{pods.address}, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { server.Kill() }()
	s := source(t, prom.Options{URL: "http://" + server.Address})

	before := scraped(t, s, 3)
	slow := histogram(t, s)
	pods.count("150", "7")
	now := scraped(t, s, 7)
	if got, err := now.Since(before); err != nil || got != (analysis.Counts{Total: 54, Bad: 4}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := histogram(t, s).Since(slow); err != nil || fmt.Sprint(got) != "{[0.1 0.25] [4 50 50]}" {
		t.Errorf("%+v, %v", got, err)
	}
	t.Run("values", func(t *testing.T) { values(t, s) })

	// the server dies: no number is made up, and what was counted meanwhile is not lost
	address := server.Address
	server.Kill()
	if got, err := s.Requests(t.Context(), all, bad, time.Now()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%+v, %v", got, err)
	}
	pods.count("170", "8")
	server, err = prometheus.Start(t.Context(), prometheus.Options{Dir: dir, Targets: []string{pods.address}, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	later := scraped(t, s, 8)
	if got, err := later.Since(now); err != nil || got != (analysis.Counts{Total: 21, Bad: 1}) {
		t.Errorf("after a restart of the server: %+v, %v", got, err)
	}

	// the pod starts anew
	pods.count("4", "1")
	reset := scraped(t, s, 1)
	if got, err := reset.Since(later); err == nil || got != (analysis.Counts{}) || !strings.Contains(err.Error(), "went from") {
		t.Errorf("after a reset: %+v, %v", got, err)
	}
	pods.count("10", "2")
	if got, err := scraped(t, s, 2).Since(reset); err != nil || got != (analysis.Counts{Total: 7, Bad: 1}) {
		t.Errorf("from the reset on: %+v, %v", got, err)
	}
}

func histogram(t *testing.T, s *prom.Source) analysis.Histogram {
	t.Helper()
	h, err := s.Histogram(t.Context(), `sum by (pod, le) (seconds_bucket)`, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func values(t *testing.T, s *prom.Source) {
	for query, want := range map[string]string{
		`scalar(count(up))`:                       "[1]",
		`sum(requests_total{code="500"})`:         "[7]",
		`nothing_of_that_name`:                    "[]",
		`1 / 0`:                                   "[+Inf]",
		`requests_total * on(pod) group_left() 0`: "parse error",
		`requests_total[5m]`:                      "the result is a matrix and not a vector",
		`sum(`:                                    "parse error",
	} {
		got, err := s.Values(t.Context(), query, time.Now())
		text := fmt.Sprint(got)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s: %s, want %s", query, text, want)
		}
	}
	if got, err := s.Values(t.Context(), "level", time.Now()); err != nil || len(got) != 1 || !math.IsNaN(got[0]) {
		t.Errorf("NaN: %v, %v", got, err)
	}
	if h, err := s.Histogram(t.Context(), "seconds_count", time.Now()); err == nil || !strings.Contains(err.Error(), "no bucket's bound") {
		t.Errorf("%v, %v", h, err)
	}
	if r, err := s.Reading(t.Context(), `{__name__=~"seconds_(sum|count)"}`, time.Now()); err == nil || !strings.Contains(err.Error(), "two series") {
		t.Errorf("%v, %v", r, err)
	}
}

// A server that accepts and says nothing is an outage too, and a short one.
func TestTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s := source(t, prom.Options{URL: "http://" + l.Addr().String(), Timeout: 100 * time.Millisecond})
	if got, err := s.Values(t.Context(), "up", time.Now()); err == nil || !strings.Contains(err.Error(), "no answer within 100ms") {
		t.Errorf("%v, %v", got, err)
	}
}

// What is not a Prometheus, or answers without end, or sends elsewhere, gives no number.
func TestAnswersThatAreNone(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the credentials %q went elsewhere", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"page": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"error": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
		"empty": func(http.ResponseWriter, *http.Request) {},
		"warning": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"status":"success","warnings":["one store is down"],"data":{"resultType":"vector","result":[]}}`)
		},
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			s := source(t, prom.Options{URL: server.URL, Transport: transport(t, web.Access{Bearer: policy.NewSecret("tell-nobody")})})
			got, err := s.Values(t.Context(), "up", time.Now())
			if err == nil || len(got) > 0 || strings.Contains(err.Error(), "tell-nobody") {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
