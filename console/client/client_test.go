package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console/client"
	"github.com/slipway-cd/slipway/policy"
)

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"https://slipway.example:8443": "",
		"http://127.0.0.1:8080":        "",
		"http://[::1]:8080":            "",
		"http://localhost":             "",
		"http://slipway.example":       "would show the token",
		"slipway.example":              "want https://HOST:PORT",
		"https://u:hunter2@x.example":  "holds a login",
	} {
		_, err := client.New(client.Options{URL: url})
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	if _, err := client.New(client.Options{URL: "https://x", CA: []byte("no")}); err == nil || !strings.Contains(err.Error(), "ca.crt") {
		t.Error(err)
	}
}

func connect(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	o.Backoff = time.Millisecond
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestErrors(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer hunter2":
			http.Error(w, `{"error":"a token is needed"}`, http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "gone"):
			http.Error(w, `{"error":"run gone: not found"}`, http.StatusNotFound)
		case strings.HasSuffix(r.URL.Path, "away"):
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		default:
			http.Error(w, "<html>", http.StatusOK)
		}
	}))
	defer h.Close()
	_, err := connect(t, client.Options{URL: h.URL}).Run(t.Context(), "x")
	var said *client.Error
	if !errors.As(err, &said) || said.Status != 401 || !strings.Contains(err.Error(), ": a token is needed") {
		t.Error(err)
	}
	c := connect(t, client.Options{URL: h.URL, Token: policy.NewSecret("hunter2")})
	if _, err := c.Run(t.Context(), "gone"); !errors.Is(err, builder.ErrNotFound) {
		t.Error(err)
	}
	for _, id := range []string{"away", "page"} {
		if _, err := c.Run(t.Context(), id); err == nil || !strings.Contains(err.Error(), "is this a Slipway server") || strings.Contains(err.Error(), "hunter2") {
			t.Error(id, err)
		}
	}
	h.Close()
	if _, err := c.Run(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "is it running") {
		t.Error(err)
	}
}

func TestAuthority(t *testing.T) {
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":"x"}`) }))
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.StartTLS()
	defer h.Close()
	if _, err := connect(t, client.Options{URL: h.URL}).Run(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "--server-ca") {
		t.Error(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if run, err := connect(t, client.Options{URL: h.URL, CA: ca}).Run(t.Context(), "x"); err != nil || run.ID != "x" {
		t.Error(run, err)
	}
}

// TestFollowOverRestarts: each line once, and the end, although each connection carries two lines and the server is away in between.
func TestFollowOverRestarts(t *testing.T) {
	var connections, lost atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := 0
		_, _ = fmt.Sscan(r.Header.Get("Last-Event-ID"), &from)
		w.Header().Set("Content-Type", "text/event-stream")
		switch n := connections.Add(1); {
		case n == 2:
			http.Error(w, `{"error":"the queue does not answer"}`, http.StatusServiceUnavailable)
			return
		case n == 3:
			from-- // a server that says a line again
		}
		for i := from + 1; i <= from+2 && i <= 5; i++ {
			fmt.Fprintf(w, ": still here\n\nid: %d\ndata: {\"sequence\":%d,\"text\":\"x\"}\n\n", i, i)
		}
		if from >= 4 {
			fmt.Fprint(w, "event: news\ndata: {}\n\nevent: end\ndata: {\"state\":\"Failed\",\"reason\":\"exit code 1\"}\n\n")
		}
	})
	h := httptest.NewServer(handler)
	address := h.Listener.Addr().String()
	restarted := make(chan struct{})
	c := connect(t, client.Options{URL: h.URL})
	var got []uint64
	end, err := c.Follow(t.Context(), "run", "a/b", func(line builder.Log) error {
		if got = append(got, line.Sequence); len(got) == 3 { // the machine restarts
			go func() {
				defer close(restarted)
				h.CloseClientConnections()
				h.Close()
				listener, err := net.Listen("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				h = &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
				h.Start()
			}()
		}
		return nil
	}, func(error) { lost.Add(1) })
	<-restarted
	h.Close()
	if err != nil || end.State != builder.Failed || end.Reason != "exit code 1" || fmt.Sprint(got) != "[1 2 3 4 5]" || lost.Load() < 2 {
		t.Errorf("%+v %v: %v, lost %d times", end, err, got, lost.Load())
	}
}

func TestFollowEnds(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "gone") {
			http.Error(w, `{"error":"run gone: not found"}`, http.StatusNotFound)
			return
		}
		fmt.Fprint(w, "id: 1\ndata: {\"sequence\":1}\n\n")
	}))
	defer h.Close()
	c := connect(t, client.Options{URL: h.URL})
	if _, err := c.Follow(t.Context(), "gone", "test", nil, nil); !errors.Is(err, builder.ErrNotFound) {
		t.Error(err)
	}
	full := errors.New("disk full")
	if _, err := c.Follow(t.Context(), "run", "test", func(builder.Log) error { return full }, nil); !errors.Is(err, full) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Follow(ctx, "run", "test", func(builder.Log) error { return nil }, func(error) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLogs(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/v1/runs/run/jobs/a%2Fb/logs" || r.URL.RawQuery != "follow=false" {
			t.Error(r.URL)
		}
		fmt.Fprint(w, "{\"sequence\":1,\"text\":\"a\"}\n{\"sequence\":2,\"text\":\"b\"}\n")
	}))
	defer h.Close()
	text := ""
	err := connect(t, client.Options{URL: h.URL}).Logs(t.Context(), "run", "a/b", func(line builder.Log) error {
		text += line.Text
		return nil
	})
	if err != nil || text != "ab" {
		t.Error(text, err)
	}
}
