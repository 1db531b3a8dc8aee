package console_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/report"
)

// within fails the test if c is silent for 10 s.
func within[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within 10 s")
		panic("unreachable")
	}
}

func TestPathsAreThoseOfTheClient(t *testing.T) {
	if console.PathReverts != report.PathReverts || console.PathReports != report.PathReports || console.PathNudges != report.PathNudges {
		t.Error("the agent asks for other paths")
	}
}

// TestAgent: the agent's own client against the API, over a server that dies and comes back.
func TestAgent(t *testing.T) {
	hub := console.NewHub(0)
	options := console.Options{Nudges: hub, Repositories: []console.Repository{{
		URL: url, Branch: "main",
		Reverts: revertFunc(func(_ context.Context, r v1alpha1.RevertRequest) (console.Reverted, error) {
			if r.Signature == "" {
				return console.Reverted{Reason: "unsigned"}, nil
			}
			return console.Reverted{Outcome: console.Done, Commit: "c0ffee", Branch: "main", Pushed: true}, nil
		}),
	}}}
	start := func(address string) *httptest.Server {
		t.Helper()
		s, err := console.New(options)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		h := httptest.NewUnstartedServer(s.Handler())
		h.Listener.Close()
		h.Listener, h.Config = listener, console.Serving(s.Handler())
		h.Start()
		return h
	}
	h := start("127.0.0.1:0")
	client, err := report.New(report.Options{Server: h.URL, Cluster: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	connected, heard := make(chan struct{}, 10), make(chan report.Nudge, 10)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client.Nudges(ctx, func() { connected <- struct{}{} }, func(n report.Nudge) { heard <- n })
	}()
	within(t, connected)
	hub.Publish(console.Nudge{URL: url, Ref: "refs/heads/main"})
	if got := within(t, heard); got != (report.Nudge{URL: url, Ref: "refs/heads/main"}) {
		t.Errorf("%+v", got)
	}

	request := v1alpha1.RevertRequest{URL: url, Branch: "main", Cluster: "eu", App: "shop", Environment: "production", Signature: "s"}
	answer, err := client.Revert(ctx, request)
	if err != nil || answer != (report.Answer{Commit: "c0ffee"}) {
		t.Errorf("%+v %v", answer, err)
	}
	within(t, heard) // what the server pushes, it tells
	request.Signature = ""
	if _, err := client.Revert(ctx, request); err == nil || !strings.Contains(err.Error(), "the server refused it: unsigned") {
		t.Error(err)
	}
	if err := client.Report(ctx, report.Report{At: time.Now(), Applications: []report.Application{{Name: "shop"}}}); err != nil {
		t.Error(err)
	}

	address := h.Listener.Addr().String()
	h.CloseClientConnections()
	h.Close()
	h = start(address)
	within(t, connected) // by itself
	hub.Publish(console.Nudge{URL: url, Ref: "refs/heads/next"})
	if got := within(t, heard); got.Ref != "refs/heads/next" {
		t.Errorf("%+v", got)
	}
	stop()
	within(t, ended)
	h.Close()
	if n := hub.Subscribers(); n != 0 {
		t.Errorf("%d subscribers are left", n)
	}
}

func TestNudgesHeartbeatAndDrain(t *testing.T) {
	s, h := serve(t, console.Options{Heartbeat: 5 * time.Millisecond, Nudges: console.NewHub(1)}, nil)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL+console.PathNudges, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Error(kind)
	}
	if status, body := do(t, http.MethodGet, h.URL+console.PathNudges, ""); status != 503 || body != `{"error":"too many listen for nudges"}` {
		t.Errorf("%d %s", status, body)
	}
	lines := bufio.NewScanner(response.Body)
	beats := 0
	for beats < 3 && lines.Scan() {
		if lines.Text() == ": still here" {
			beats++
		}
	}
	s.Drain()
	for lines.Scan() { // until the server ends the stream
	}
	if beats != 3 || lines.Err() != nil {
		t.Errorf("%d beats, %v", beats, lines.Err())
	}
}

// TestSlowListenerIsDropped: who does not read loses its stream, and nobody waits for it.
func TestSlowListenerIsDropped(t *testing.T) {
	hub := console.NewHub(0)
	slow, endSlow, _ := hub.Subscribe()
	quick, endQuick, _ := hub.Subscribe()
	defer endSlow()
	defer endQuick()
	const many = 1000
	for range many {
		hub.Publish(console.Nudge{URL: url})
		if n := <-quick; n.URL != url {
			t.Fatal(n)
		}
	}
	got := 0
	for range slow { // closed after its backlog
		got++
	}
	if got == 0 || got >= many || hub.Subscribers() != 1 {
		t.Errorf("%d nudges, %d subscribers", got, hub.Subscribers())
	}
}

// scriptedRefs answers one step for each look.
type scriptedRefs struct {
	steps []map[string]gitsource.ObjectID // nil: the host is down
	looks int
}

func (s *scriptedRefs) Refs(context.Context) (map[string]gitsource.ObjectID, error) {
	step := s.steps[s.looks]
	s.looks++
	if step == nil {
		return nil, errors.New("down")
	}
	return step, nil
}

func TestPoller(t *testing.T) {
	type refs = map[string]gitsource.ObjectID
	script := &scriptedRefs{steps: []refs{
		{"refs/heads/main": "1"},
		{"refs/heads/main": "1"},
		nil, nil,
		{"refs/heads/main": "2", "refs/tags/v1": "2"}, // while it was down
		{"refs/heads/main": "2", "refs/heads/promote/x": "3"},
		{"refs/heads/main": "2"},
	}}
	hub := console.NewHub(0)
	nudges, end, _ := hub.Subscribe()
	defer end()
	var waits []time.Duration
	console.Poller{
		URL: url, Refs: script, Hub: hub, Every: 10 * time.Second, Log: logr.Discard(),
		Wait: func(_ context.Context, d time.Duration) error {
			waits = append(waits, d)
			if script.looks == len(script.steps) {
				return context.Canceled
			}
			return nil
		},
	}.Run(t.Context())
	var got []string
	for len(nudges) > 0 {
		got = append(got, (<-nudges).Ref)
	}
	if want := []string{"refs/heads/main", "refs/heads/promote/x"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for i, base := range []time.Duration{10, 10, 20, 40, 10, 10, 10} {
		if d := waits[i]; d < base*time.Second*8/10 || d > base*time.Second*12/10 {
			t.Errorf("wait %d is %s, want about %d s", i, d, base)
		}
	}
}
