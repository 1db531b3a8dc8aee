package console_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const url = "https://git.example/env.git"

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// revertFunc is a Reverter that answers what a test says.
type revertFunc func(ctx context.Context, r v1alpha1.RevertRequest) (console.Reverted, error)

func (f revertFunc) Revert(ctx context.Context, r v1alpha1.RevertRequest) (console.Reverted, error) {
	return f(ctx, r)
}

func serve(t *testing.T, o console.Options, reverts revertFunc) (*console.Server, *httptest.Server) {
	t.Helper()
	if reverts == nil {
		reverts = func(context.Context, v1alpha1.RevertRequest) (console.Reverted, error) {
			return console.Reverted{}, errors.New("not expected")
		}
	}
	o.Repositories = []console.Repository{{URL: url, Branch: "main", Reverts: reverts}}
	o.Now = func() time.Time { return noon }
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	s, err := console.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	return s, h
}

func do(t *testing.T, method, target, body string, header ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSuffix(string(content), "\n")
}

const goodRevert = `{"url":"` + url + `","branch":"main","cluster":"eu","app":"shop","environment":"production","path":"apps/shop/production",` +
	`"tip":"a","failed":"b","healthy":"c","tree":"d","message":"m","direct":true,"at":"2026-03-01T12:00:00Z","signature":"s"}`

func TestReverts(t *testing.T) {
	answers := func(r console.Reverted, err error) revertFunc {
		return func(context.Context, v1alpha1.RevertRequest) (console.Reverted, error) { return r, err }
	}
	for name, c := range map[string]struct {
		reverts  revertFunc
		body     string
		header   []string
		status   int
		want     string
		counted  string
		contains bool
	}{
		"done":       {reverts: answers(console.Reverted{Outcome: console.Done, Commit: "c0ffee", Branch: "main", Pushed: true}, nil), body: goodRevert, status: 200, want: `{"commit":"c0ffee"}`, counted: "done"},
		"waits":      {reverts: answers(console.Reverted{Outcome: console.Done, Commit: "c0ffee", Branch: "revert/production/shop"}, nil), body: goodRevert, status: 200, want: `{"branch":"revert/production/shop"}`, counted: "done"},
		"superseded": {reverts: answers(console.Reverted{Outcome: console.Superseded, Reason: "moved"}, nil), body: goodRevert, status: 200, want: `{"superseded":true}`, counted: "superseded"},
		"refused":    {reverts: answers(console.Reverted{Reason: "who <are> you"}, nil), body: goodRevert, status: 403, want: `{"error":"who <are> you"}`, counted: "refused"},
		"unreachable": {
			reverts: answers(console.Reverted{}, fmt.Errorf("https://u:hunter2@git.example: %w", gitsource.ErrUnreachable)), body: goodRevert,
			status: 503, want: `{"error":"the Git host cannot be reached (send it again)"}`, counted: "unknown",
		},
		"unknown": {reverts: answers(console.Reverted{}, errors.New("hunter2")), body: goodRevert, status: 503, want: `{"error":"it could not be carried out; the server's log says why (send it again)"}`, counted: "unknown"},
		"other repository": {
			body: strings.Replace(goodRevert, url, "https://git.example/other.git", 1), status: 403, counted: "refused",
			want: `{"error":"this server does not write to branch main of https://git.example/other.git (name the repository with --repo, in the same spelling as the GitSource)"}`,
		},
		"other branch":  {body: strings.Replace(goodRevert, `"main"`, `"next"`, 1), status: 403, want: "does not write to branch next", contains: true, counted: "refused"},
		"large":         {body: `{"message":"` + strings.Repeat("x", 1<<20) + `"}`, status: 413, want: `{"error":"body: larger than 1048576 bytes"}`, counted: "malformed"},
		"large tail":    {body: goodRevert + strings.Repeat(" ", 1<<20), status: 413, want: `{"error":"body: larger than 1048576 bytes"}`, counted: "malformed"},
		"empty":         {status: 400, want: `{"error":"body: EOF"}`, counted: "malformed"},
		"not JSON":      {body: "<html>", status: 400, want: `{"error":"body: invalid character '<' looking for beginning of value"}`, counted: "malformed"},
		"unknown field": {body: `{"force":true}`, status: 400, want: `{"error":"body: json: unknown field \"force\""}`, counted: "malformed"},
		"two values":    {body: goodRevert + goodRevert, status: 400, want: `{"error":"body: more than one value"}`, counted: "malformed"},
		"bad time":      {body: `{"at":"yesterday"}`, status: 400, want: "body: ", contains: true, counted: "malformed"},
		"form":          {body: goodRevert, header: []string{"Content-Type", "text/plain"}, status: 415, want: `{"error":"want Content-Type: application/json"}`, counted: "malformed"},
		"panic": {
			reverts: func(context.Context, v1alpha1.RevertRequest) (console.Reverted, error) { panic("bug") }, body: goodRevert,
			status: 500, want: `{"error":"internal error"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewPedanticRegistry()
			_, h := serve(t, console.Options{Metrics: registry}, c.reverts)
			status, body := do(t, http.MethodPost, h.URL+console.PathReverts, c.body, c.header...)
			if status != c.status || body != c.want && (!c.contains || !strings.Contains(body, c.want)) {
				t.Errorf("%d %s\nwant %d %s", status, body, c.status, c.want)
			}
			wantMetrics := fmt.Sprintf("# HELP slipway_server_requests_total Requests to the API, by path and status code.\n# TYPE slipway_server_requests_total counter\n"+
				"slipway_server_requests_total{code=%q,method=\"POST\",path=\"/v1/reverts\"} 1\n", fmt.Sprint(c.status))
			if err := testutil.GatherAndCompare(registry, strings.NewReader(wantMetrics), "slipway_server_requests_total"); err != nil {
				t.Error(err)
			}
			if c.counted == "" {
				return
			}
			wantMetrics = fmt.Sprintf("# HELP slipway_server_reverts_total Revert requests by outcome: done, superseded, refused, malformed, or unknown when Git did not answer.\n"+
				"# TYPE slipway_server_reverts_total counter\nslipway_server_reverts_total{outcome=%q} 1\n", c.counted)
			if err := testutil.GatherAndCompare(registry, strings.NewReader(wantMetrics), "slipway_server_reverts_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRevertsInTurn: never two at a time, and no more waiting than allowed.
func TestRevertsInTurn(t *testing.T) {
	const waiting = 4
	var at, most atomic.Int64
	release := make(chan struct{})
	_, h := serve(t, console.Options{Waiting: waiting}, func(context.Context, v1alpha1.RevertRequest) (console.Reverted, error) {
		most.Store(max(most.Load(), at.Add(1)))
		defer at.Add(-1)
		<-release
		return console.Reverted{Outcome: console.Superseded}, nil
	})
	codes := make(chan int, waiting+1)
	var all sync.WaitGroup
	for range waiting + 1 {
		all.Go(func() {
			status, _ := do(t, http.MethodPost, h.URL+console.PathReverts, goodRevert)
			codes <- status
		})
	}
	if first := <-codes; first != http.StatusServiceUnavailable { // the one too many
		t.Errorf("%d", first)
	}
	close(release)
	all.Wait()
	close(codes)
	for status := range codes {
		if status != http.StatusOK {
			t.Errorf("%d", status)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d at a time", most.Load())
	}
}

// TestRevertOutlivesItsClient: an agent that hangs up does not stop a push half-way.
func TestRevertOutlivesItsClient(t *testing.T) {
	begun, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	_, h := serve(t, console.Options{}, func(ctx context.Context, _ v1alpha1.RevertRequest) (console.Reverted, error) {
		close(begun)
		<-goOn
		ended <- ctx.Err()
		return console.Reverted{Outcome: console.Superseded}, nil
	})
	ctx, hangUp := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+console.PathReverts, strings.NewReader(goodRevert))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
		}
	}()
	<-begun
	hangUp()
	<-gone
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestRevertIsBounded: a Git host that hangs costs its own repository a minute, not for ever.
func TestRevertIsBounded(t *testing.T) {
	_, h := serve(t, console.Options{CarryOut: 50 * time.Millisecond}, func(ctx context.Context, _ v1alpha1.RevertRequest) (console.Reverted, error) {
		<-ctx.Done()
		return console.Reverted{}, ctx.Err()
	})
	for range 2 {
		if status, body := do(t, http.MethodPost, h.URL+console.PathReverts, goodRevert); status != 503 || body != `{"error":"it took too long (send it again)"}` {
			t.Errorf("%d %s", status, body)
		}
	}
}

func TestReports(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	_, h := serve(t, console.Options{Clusters: 2, Metrics: registry}, nil)
	target := h.URL + console.PathReports
	report := func(cluster, at, name string) string {
		return fmt.Sprintf(`{"cluster":%q,"at":%q,"applications":[{"name":%q,"app":"shop","path":"apps/shop","healthy":true}]}`, cluster, at, name)
	}
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{report("us", "2026-03-01T11:59:00Z", "first"), 204, ""},
		{report("eu", "2026-03-01T12:01:00Z", "newer"), 204, ""},
		{report("eu", "2026-03-01T12:00:00Z", "late"), 204, ""}, // overtaken on its way
		{report("asia", "2026-03-01T12:00:00Z", "x"), 429, `{"error":"too many clusters report to this server"}`},
		{report("us", "2026-03-01T13:00:00Z", "x"), 400, `{"error":"at: missing or in the future (check the cluster's clock)"}`},
		{report("../us", "2026-03-01T12:00:00Z", "x"), 400, `{"error":"cluster \"../us\": want 1 to 63 lower-case letters, digits and inner dashes"}`},
		{`{"cluster":"us"}`, 400, `{"error":"at: missing or in the future (check the cluster's clock)"}`},
		{`{"cluster":"us","secrets":{}}`, 400, `{"error":"body: json: unknown field \"secrets\""}`},
		{`{"cluster":"` + strings.Repeat("x", 1<<20) + `"}`, 413, `{"error":"body: larger than 1048576 bytes"}`},
	} {
		if status, body := do(t, http.MethodPost, target, c.body); status != c.status || body != c.want {
			t.Errorf("%.100s: %d %s, want %d %s", c.body, status, body, c.status, c.want)
		}
	}
	want := `{"reports":[` +
		`{"cluster":"eu","at":"2026-03-01T12:01:00Z","applications":[{"name":"newer","app":"shop","path":"apps/shop","healthy":true}],"receivedAt":"2026-03-01T12:00:00Z"},` +
		`{"cluster":"us","at":"2026-03-01T11:59:00Z","applications":[{"name":"first","app":"shop","path":"apps/shop","healthy":true}],"receivedAt":"2026-03-01T12:00:00Z"}]}`
	if status, body := do(t, http.MethodGet, target, ""); status != 200 || body != want {
		t.Errorf("%d %s\nwant %s", status, body, want)
	}
	if n, err := testutil.GatherAndCount(registry, "slipway_server_reporting_clusters"); n != 1 || err != nil {
		t.Error(n, err)
	}
}

func TestProbesAndUnknownPaths(t *testing.T) {
	s, h := serve(t, console.Options{}, nil)
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/": 404, "/v1/reverts": 405, "/v1/nudge": 404, "/metrics": 404,
	} {
		if status, _ := do(t, http.MethodGet, h.URL+path, ""); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	s.Drain()
	if status, _ := do(t, http.MethodGet, h.URL+"/readyz", ""); status != 503 {
		t.Errorf("ready while it stops: %d", status)
	}
}

// TestLogHoldsNoSecrets: the message, the signature and a long name stay out of it.
func TestLogHoldsNoSecrets(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	log := funcr.NewJSON(func(line string) {
		mu.Lock()
		defer mu.Unlock()
		out.WriteString(line + "\n")
	}, funcr.Options{})
	_, h := serve(t, console.Options{Log: log}, func(context.Context, v1alpha1.RevertRequest) (console.Reverted, error) {
		return console.Reverted{Reason: "the signature does not fit"}, nil
	})
	body := strings.NewReplacer(`"s"`, `"top-signature"`, `"m"`, `"top-message"`, `"eu"`, `"`+strings.Repeat("e", 5000)+`"`).Replace(goodRevert)
	do(t, http.MethodPost, h.URL+console.PathReverts, body)
	mu.Lock()
	defer mu.Unlock()
	if s := out.String(); strings.Contains(s, "top-") || len(s) > 1000 || !strings.Contains(s, `"outcome":"refused"`) {
		t.Error(s)
	}
}

func TestNewRefuses(t *testing.T) {
	never := revertFunc(nil)
	for name, repositories := range map[string][]console.Repository{
		"none":      nil,
		"no branch": {{URL: url, Reverts: never}},
		"twice":     {{URL: url, Branch: "main", Reverts: never}, {URL: url, Branch: "main", Reverts: never}},
	} {
		if _, err := console.New(console.Options{Repositories: repositories}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
