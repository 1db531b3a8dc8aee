package server_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/slipway-cd/slipway/reconciler"
	"github.com/slipway-cd/slipway/reconciler/report"
)

// TestKilled: the real binary dies just before and just after the push. Whoever
// starts again answers the request that is sent again, and one commit is there.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds a binary")
	}
	binary := filepath.Join(t.TempDir(), "slipway-server")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoints", "-o", binary, "github.com/slipway-cd/slipway/cmd/slipway-server")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for point, pushed := range map[string]int{reconciler.FailpointCommit: 0, reconciler.FailpointPush: 1} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			r := w.request()
			before := len(w.log("main"))
			data := t.TempDir()
			client, ended := w.start(binary, data, "SLIPWAY_FAILPOINT="+point)
			if _, err := client.Revert(t.Context(), r); err == nil {
				t.Error("it answered")
			}
			if state := <-ended; !state.Sys().(syscall.WaitStatus).Signaled() {
				t.Errorf("it ended by itself: %s", state)
			}
			if got := len(w.log("main")) - before; got != pushed {
				t.Errorf("%d reverts after the kill, want %d", got, pushed)
			}
			client, _ = w.start(binary, data)
			for range 2 {
				if got, err := client.Revert(t.Context(), r); err != nil || got.Commit != string(w.tip()) {
					t.Errorf("%+v %v", got, err)
				}
			}
			if got := len(w.log("main")) - before; got != 1 {
				t.Errorf("%d reverts, want 1", got)
			}
		})
	}
}

// start runs the binary until the test ends and waits for it to listen.
func (w *world) start(binary, data string, env ...string) (*report.Client, <-chan *os.ProcessState) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), binary, "--repo", w.url, "--listen", "127.0.0.1:0", "--insecure-http",
		"--metrics-address", "0", "--poll", "0", "--data", data)
	cmd.Env = append(os.Environ(), env...)
	output, err := cmd.StderrPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	address, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		defer close(address)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				address <- line.Address
			}
		}
	}()
	ended, gone := make(chan *os.ProcessState, 1), make(chan struct{})
	go func() {
		defer close(gone)
		<-drained
		_ = cmd.Wait() // the state says it
		ended <- cmd.ProcessState
	}()
	w.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		<-gone
	})
	at := <-address
	if !strings.HasPrefix(at, "127.0.0.1:") {
		w.Fatalf("the server did not start: %q", at)
	}
	return w.client("http://"+at, nil), ended
}
