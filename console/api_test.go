package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
)

// memory is Runs, Control and Tracer over values.
type memory struct {
	mu     sync.Mutex
	runs   []builder.Run // newest first
	asked  []string
	broken error
	lines  func(ctx context.Context, from uint64, follow bool) iter.Seq2[builder.Log, error]
}

const commitID = gitsource.ObjectID("0123456789abcdef0123456789abcdef01234567")

func newMemory() *memory {
	m := &memory{}
	for i := 5; i > 0; i-- {
		m.runs = append(m.runs, builder.Run{
			ID: fmt.Sprintf("run-%d", i), Repo: builder.Repo{Name: "shop"}, Revision: gitsource.Revision{ID: commitID}, State: builder.Running, Created: noon,
			Jobs: []builder.Job{{Name: "test", State: builder.Running, Steps: []builder.Step{}}},
		})
	}
	return m
}

func (m *memory) say(format string, args ...any) {
	m.asked = append(m.asked, fmt.Sprintf(format, args...))
}

func (m *memory) Runs(_ context.Context, f builder.RunFilter) ([]builder.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.say("runs %s %s %s %v", f.Repo, f.Branch, f.Commit, f.States)
	at := slices.IndexFunc(m.runs, func(r builder.Run) bool { return r.ID == f.Before }) + 1
	return m.runs[at:min(len(m.runs), at+f.Limit)], m.broken
}

func (m *memory) Run(_ context.Context, id string) (builder.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		if r.ID == id {
			return r, m.broken
		}
	}
	return builder.Run{}, fmt.Errorf("run %s: %w", id, builder.ErrNotFound)
}

func (m *memory) end(state builder.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs[0].State = state
	m.runs[0].Jobs = []builder.Job{{Name: "test", State: state, Reason: "exit code 1"}}
}

func (m *memory) Logs(ctx context.Context, _, _ string, from uint64, follow bool) iter.Seq2[builder.Log, error] {
	return m.lines(ctx, from, follow)
}

func (m *memory) Cancel(_ context.Context, id, by, reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.say("cancel %s by %s: %s", id, by, reason)
	return m.broken
}

func (m *memory) Retry(_ context.Context, id, by string) (builder.Run, error) {
	if id == "gone" {
		return builder.Run{}, fmt.Errorf("retry: its commit is gone: %w", console.ErrRefused)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.say("retry %s by %s", id, by)
	return builder.Run{ID: "new"}, nil
}

func (m *memory) Trace(_ context.Context, subject string) ([]chain.Stage, error) {
	if subject == "nothing" {
		return nil, nil
	}
	return []chain.Stage{{Stage: "run", ID: subject, At: noon}}, nil
}

func build(t *testing.T, m *memory, o console.Options) (*console.Server, *httptest.Server) {
	t.Helper()
	o.Runs, o.Control, o.Tracer = m, m, m
	return serve(t, o, nil)
}

func TestRuns(t *testing.T) {
	m := newMemory()
	_, h := build(t, m, console.Options{})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // part of the answer
	}{
		{"GET", "/v1/runs?limit=2", "", 200, `"next":"run-4"`},
		{"GET", "/v1/runs?limit=2&before=run-3", "", 200, `{"runs":[{"id":"run-2",`},
		{"GET", "/v1/runs?before=run-1", "", 200, `{"runs":[]}`},
		{"GET", "/v1/runs?limit=201", "", 400, "want a number from 1 to 200"},
		{"GET", "/v1/runs?state=Done", "", 400, `state \"Done\" is none of`},
		{"GET", "/v1/runs?commit=0123", "", 400, "give all of its digits"},
		{"GET", "/v1/runs?repos=shop", "", 400, `parameter \"repos\": want repo,`},
		{"GET", "/v1/runs/run-1", "", 200, `"state":"Running"`},
		{"GET", "/v1/runs/run-9", "", 404, `{"error":"run run-9: not found"}`},
		{"GET", "/v1/runs/run-1/jobs", "", 200, `{"jobs":[{"name":"test","state":"Running","steps":[]}]}`},
		{"GET", "/v1/runs/run-1/jobs/x/logs", "", 404, `job \"x\": not found (it has test)`},
		{"GET", "/v1/runs/run-1/jobs/test/logs?from=x", "", 400, "want the sequence of a line"},
		{"POST", "/v1/runs/run-1/cancel", `{"reason":"wrong branch"}`, 202, `"id":"run-1"`},
		{"POST", "/v1/runs/run-1/cancel", `{"reason":" "}`, 400, "say why"},
		{"POST", "/v1/runs/run-9/cancel", `{"reason":"x"}`, 404, "run-9: not found"},
		{"POST", "/v1/runs/run-1/retry", `{}`, 201, `"id":"new"`},
		{"POST", "/v1/runs/run-1/retry", `{"reason":"x"}`, 400, "unknown field"},
		{"POST", "/v1/runs/gone/retry", `{}`, 409, "its commit is gone"},
		{"POST", "/v1/runs/run-1/retry", strings.Repeat(" ", 2<<20), 413, "larger than"},
		{"DELETE", "/v1/runs/run-1", "", 405, `{"error":"method DELETE: want GET, HEAD"}`},
		{"GET", "/v1/run", "", 404, "GET /openapi.json lists what there is"},
		{"GET", "/v1/trace/https:%2F%2Fgit.example%2Fshop@" + string(commitID), "", 200, `{"subject":"https://git.example/shop@` + string(commitID)},
		{"GET", "/v1/trace/nothing", "", 404, "nothing is known of it"},
		{"GET", "/openapi.json", "", 200, `"openapi": "3.1.0"`},
		{"POST", "/v1/hooks/shop", "{}", 404, "takes no webhooks"},
	} {
		status, body := do(t, c.method, h.URL+c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, status, body, c.status, c.want)
		}
	}
	if !slices.Contains(m.asked, "cancel run-1 by local: wrong branch") || !slices.Contains(m.asked, "retry run-1 by local") {
		t.Error(m.asked)
	}
	do(t, http.MethodGet, h.URL+"/v1/runs?repo=shop&branch=main&state=Failed,Running&commit="+string(commitID), "")
	if want := "runs shop main " + string(commitID) + " [Failed Running]"; m.asked[len(m.asked)-1] != want {
		t.Errorf("%s, want %s", m.asked[len(m.asked)-1], want)
	}
	m.end(builder.Failed)
	if status, body := do(t, http.MethodPost, h.URL+"/v1/runs/run-5/cancel", `{"reason":"late"}`); status != 409 || !strings.Contains(body, "it has ended already: Failed") {
		t.Errorf("%d %s", status, body)
	}
	m.broken = errors.New("hunter2")
	if status, body := do(t, http.MethodGet, h.URL+"/v1/runs", "", "X-Request-Id", "mine"); status != 503 || strings.Contains(body, "hunter2") || !strings.Contains(body, "at request mine") {
		t.Errorf("%d %s", status, body)
	}
}

func TestWithoutBuilding(t *testing.T) {
	_, h := serve(t, console.Options{}, nil)
	for path, want := range map[string]string{"/v1/runs": "builds nothing", "/v1/trace/x": "tells no chains"} {
		if status, body := do(t, http.MethodGet, h.URL+path, ""); status != http.StatusNotImplemented || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestApplications(t *testing.T) {
	_, h := serve(t, console.Options{}, nil)
	report := `{"cluster":"eu","at":"2026-03-01T12:00:00Z","applications":[{"name":"shop-dev","app":"shop","environment":"dev","path":"a","healthy":true},{"name":"cart","app":"cart","path":"b","healthy":false}]}`
	if status, body := do(t, http.MethodPost, h.URL+console.PathReports, report); status != 204 {
		t.Fatal(status, body)
	}
	want := `{"applications":[{"cluster":"eu","receivedAt":"2026-03-01T12:00:00Z","name":"shop-dev","app":"shop","environment":"dev","path":"a","healthy":true}]}`
	if status, body := do(t, http.MethodGet, h.URL+"/v1/applications?app=shop&cluster=eu", ""); status != 200 || body != want {
		t.Errorf("%d %s\nwant %s", status, body, want)
	}
	if status, body := do(t, http.MethodGet, h.URL+"/v1/applications?env=dev", ""); status != 400 {
		t.Errorf("%d %s", status, body)
	}
}

func TestHooksAreHandedOn(t *testing.T) {
	_, h := serve(t, console.Options{
		Tokens: []console.Token{{Name: "ada"}},
		Hooks:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.Path, http.StatusAccepted) }),
	}, nil)
	if status, body := do(t, http.MethodPost, h.URL+"/v1/hooks/shop", "{}"); status != 202 || body != "/v1/hooks/shop" {
		t.Errorf("%d %s", status, body)
	}
}

func tokens(t *testing.T) (read, write string, all []console.Token) {
	t.Helper()
	var lines []string
	secrets := map[console.Scope]string{}
	for _, scope := range []console.Scope{console.Read, console.Write} {
		secret, line, err := console.NewToken("to-"+scope.String(), scope)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, secret.Reveal()) {
			t.Error("the line holds the secret")
		}
		secrets[scope], lines = secret.Reveal(), append(lines, line)
	}
	all, err := console.ParseTokens([]byte("# who may\n\n" + strings.Join(lines, "\n") + "\n"))
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	return secrets[console.Read], secrets[console.Write], all
}

func TestTokens(t *testing.T) {
	read, write, all := tokens(t)
	m := newMemory()
	_, h := build(t, m, console.Options{Tokens: all})
	for name, c := range map[string]struct {
		method, header string
		status         int
		want           string
	}{
		"none":             {"GET", "", 401, "SLIPWAY_TOKEN"},
		"another scheme":   {"GET", "Basic " + read, 401, "a token is needed"},
		"unknown":          {"GET", "Bearer " + read + "x", 401, "not known"},
		"empty":            {"GET", "Bearer ", 401, "not known"},
		"read":             {"GET", "bearer " + read, 200, "run-5"},
		"write reads too":  {"GET", "Bearer " + write, 200, "run-5"},
		"read for writing": {"POST", "Bearer " + read, 403, "the token of to-read may read, and this needs write"},
		"write":            {"POST", "Bearer " + write, 202, "run-5"},
	} {
		path, body := "/v1/runs", ""
		if c.method == "POST" {
			path, body = "/v1/runs/run-5/cancel", `{"reason":"x"}`
		}
		if status, got := do(t, c.method, h.URL+path, body, "Authorization", c.header); status != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s: %d %s", name, status, got)
		}
	}
	if !slices.Contains(m.asked, "cancel run-5 by to-write: x") {
		t.Error(m.asked)
	}
	// Agents and the document need none.
	for _, path := range []string{console.PathReports, console.PathOpenAPI, "/healthz"} {
		if status, body := do(t, http.MethodGet, h.URL+path, ""); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestParseTokens(t *testing.T) {
	hash := "sha256:" + strings.Repeat("ab", 32)
	for line, want := range map[string]string{
		"ada read " + hash:                   "",
		"ada read":                           "2 fields",
		"ada admin " + hash:                  `scope "admin": want read or write`,
		"ada read slipway_hunter2":           "no SHA-256",
		"ada read sha256:abcd":               "no SHA-256",
		"ada read " + hash + "\nx\ny z read": "line 3",
	} {
		_, err := console.ParseTokens([]byte(line))
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
	for _, name := range []string{"", "a b", "a\nb", "#a"} {
		if _, line, err := console.NewToken(name, console.Read); err == nil {
			t.Errorf("%q: %s", name, line)
		}
	}
	if _, _, err := console.NewToken("ada", console.NoScope); err == nil {
		t.Error("a token for nothing")
	}
}

// TestWithoutTokens: this machine alone, and no web page that is open on it.
func TestWithoutTokens(t *testing.T) {
	_, h := build(t, newMemory(), console.Options{})
	ask := func(host, header string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL+"/v1/runs", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if header != "" {
			r.Header.Set(header, "x")
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	for _, c := range []struct {
		host, header string
		want         int
	}{
		{"", "", 200},
		{"localhost:1", "", 200},
		{"[::1]:8080", "", 200},
		{"rebound.example", "", 403},
		{"192.0.2.1", "", 403},
		{"localhost", "X-Forwarded-For", 403},
		{"localhost", "Forwarded", 403},
	} {
		if got := ask(c.host, c.header); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// event is one of a stream of logs.
type event struct{ kind, id, data string }

// listen opens a stream and calls each for its events until it returns false or the stream ends.
func listen(t *testing.T, target, last string, each func(event) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatal(response.StatusCode, kind)
	}
	var e event
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			e.kind = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			if value != "" {
				e.kind = "comment"
			}
			if e != (event{}) && !each(e) {
				return
			}
			e = event{}
		}
	}
}

// counted yields lines 1 to n, then waits for go on, if it is followed.
func counted(n uint64, goOn <-chan struct{}) func(context.Context, uint64, bool) iter.Seq2[builder.Log, error] {
	return func(ctx context.Context, from uint64, follow bool) iter.Seq2[builder.Log, error] {
		return func(yield func(builder.Log, error) bool) {
			for i := from + 1; i <= n; i++ {
				if !yield(builder.Log{Sequence: i, At: noon, Attempt: 1, Stream: "stdout", Text: fmt.Sprintf("line\n%d", i)}, nil) {
					return
				}
			}
			if !follow {
				return
			}
			select {
			case <-goOn:
			case <-ctx.Done():
				yield(builder.Log{}, ctx.Err())
			}
		}
	}
}

func TestLogs(t *testing.T) {
	m := newMemory()
	goOn := make(chan struct{})
	m.lines = counted(5, goOn)
	_, h := build(t, m, console.Options{Heartbeat: 5 * time.Millisecond})
	target := h.URL + "/v1/runs/run-5/jobs/test/logs"

	if status, body := do(t, http.MethodGet, target+"?from=3", ""); status != 200 || strings.Count(body, "\n") != 1 || !strings.HasPrefix(body, `{"sequence":4,`) {
		t.Errorf("%d %s", status, body)
	}
	// The third line is the last that is seen; a second stream goes on behind it, and ends with the job.
	var got []string
	listen(t, target, "", func(e event) bool {
		if e.kind == "" {
			got = append(got, e.id)
		}
		return e.id != "3"
	})
	beats, ended := 0, false
	listen(t, target+"?from=1", "3", func(e event) bool {
		switch {
		case e.kind == "comment":
			if beats++; beats == 3 {
				m.end(builder.Failed)
				close(goOn)
			}
		case e.kind == "end":
			ended = true
			if want := `{"state":"Failed","reason":"exit code 1"}`; e.data != want {
				t.Errorf("%s, want %s", e.data, want)
			}
		default:
			got = append(got, e.id)
			var line builder.Log
			if err := json.Unmarshal([]byte(e.data), &line); err != nil || line.Text != "line\n"+e.id {
				t.Errorf("%s: %v", e.data, err)
			}
		}
		return true
	})
	if want := []string{"1", "2", "3", "4", "5"}; !slices.Equal(got, want) || !ended || beats < 3 {
		t.Errorf("%v, ended %t, %d beats", got, ended, beats)
	}
}

// TestLogsEndWithoutEnd: a server that stops, and lines that cannot be read, leave the client to come again.
func TestLogsEndWithoutEnd(t *testing.T) {
	m := newMemory()
	m.lines = func(context.Context, uint64, bool) iter.Seq2[builder.Log, error] {
		return func(yield func(builder.Log, error) bool) { yield(builder.Log{}, errors.New("NATS is down")) }
	}
	s, h := build(t, m, console.Options{})
	target := h.URL + "/v1/runs/run-5/jobs/test/logs"
	never := func(e event) bool {
		if e.kind == "end" {
			t.Errorf("%+v", e)
		}
		return true
	}
	listen(t, target, "", never)
	m.lines = counted(1, nil)
	listen(t, target, "", func(e event) bool {
		if e.id == "1" {
			s.Drain()
		}
		return never(e)
	})
}

func TestTooManyReadLogs(t *testing.T) {
	m := newMemory()
	m.lines = counted(1, nil)
	_, h := build(t, m, console.Options{Streams: 1})
	target := h.URL + "/v1/runs/run-5/jobs/test/logs"
	listen(t, target, "", func(e event) bool {
		if e.id == "" {
			return true
		}
		if status, body := do(t, http.MethodGet, target, ""); status != http.StatusTooManyRequests || !strings.Contains(body, "1 clients") {
			t.Errorf("%d %s", status, body)
		}
		return false
	})
}

// TestSlowLogReader: for a client that takes nothing, no more lines are read than the network and the server hold.
func TestSlowLogReader(t *testing.T) {
	m := newMemory()
	var mu sync.Mutex
	read, gone := 0, make(chan struct{})
	m.lines = func(context.Context, uint64, bool) iter.Seq2[builder.Log, error] {
		return func(yield func(builder.Log, error) bool) {
			defer close(gone)
			text := strings.Repeat("x", 64<<10)
			for i := uint64(1); yield(builder.Log{Sequence: i, Text: text}, nil); i++ {
				mu.Lock()
				read++
				mu.Unlock()
			}
		}
	}
	_, h := build(t, m, console.Options{})
	listen(t, h.URL+"/v1/runs/run-5/jobs/test/logs", "", func(event) bool {
		at := func() int { mu.Lock(); defer mu.Unlock(); return read }
		for last, still, deadline := -1, 0, time.Now().Add(5*time.Second); still < 1000 && time.Now().Before(deadline); runtime.Gosched() {
			if n := at(); n == last {
				still++
			} else {
				last, still = n, 0
			}
		}
		return false
	})
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Fatal("it is still read for a client that has gone")
	}
	if mu.Lock(); read > 2000 { // 128 MiB
		t.Errorf("%d lines were read for nobody", read)
	}
	mu.Unlock()
}
