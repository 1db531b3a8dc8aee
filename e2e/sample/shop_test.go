package sample_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// buildShop compiles the sample service.
func buildShop(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "shop")
	cmd := exec.Command("go", "build", "-o", program, "../testdata/shop")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// shop is the sample service, running.
type shop struct {
	*testing.T
	cmd     *exec.Cmd
	address string
	ended   chan error
}

func startShop(t *testing.T, program, behaviour string, env ...string) *shop {
	t.Helper()
	s := &shop{T: t, cmd: exec.Command(program), ended: make(chan error, 1)}
	s.cmd.Env = append([]string{"SHOP_BEHAVIOUR=" + behaviour, "SHOP_VERSION=7", "SHOP_ADDRESS=127.0.0.1:0", "GREETING=Ahoy"}, env...)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s.address = line[strings.LastIndexByte(line, ' ')+1 : len(line)-1]
	go func() { s.ended <- s.cmd.Wait() }()
	return s
}

func (s *shop) get(path string, header ...string) (int, string) {
	s.Helper()
	request, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://"+s.address+path, http.NoBody)
	if err != nil {
		s.Fatal(err)
	}
	request.Close = true
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// until polls f, at most 10 s.
func (s *shop) until(what string, f func() bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			s.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

func TestShopBehaves(t *testing.T) {
	t.Parallel()
	program := buildShop(t)
	for behaviour, readyz := range map[string]int{"": http.StatusOK, "ready": http.StatusOK, "never-ready": http.StatusServiceUnavailable} {
		s := startShop(t, program, behaviour)
		if code, body := s.get("/"); code != http.StatusOK || body != "Ahoy from shop 7\n" {
			t.Errorf("%q: / answers %d %q", behaviour, code, body)
		}
		if code, _ := s.get("/healthz"); code != http.StatusOK {
			t.Errorf("%q: /healthz answers %d", behaviour, code)
		}
		if code, _ := s.get("/readyz"); code != readyz {
			t.Errorf("%q: /readyz answers %d, want %d", behaviour, code, readyz)
		}
	}
	for behaviour, says := range map[string]string{"crash": "panic: ", "sulk": "want ready, crash or never-ready"} {
		cmd := exec.Command(program)
		cmd.Env = []string{"SHOP_BEHAVIOUR=" + behaviour}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), says) {
			t.Errorf("%s: %v\n%s", behaviour, err, &stderr)
		}
	}
}

func TestShopFailsAsOftenAsItIsTold(t *testing.T) {
	t.Parallel()
	s := startShop(t, buildShop(t), "ready", "SHOP_FAILS=25")
	failed := 0
	for range 40 {
		code, body := s.get("/")
		if code == http.StatusInternalServerError {
			failed++
		}
		if body != "Ahoy from shop 7\n" {
			t.Errorf("%d %q", code, body)
		}
	}
	if code, _ := s.get("/readyz"); failed != 10 || code != http.StatusOK {
		t.Errorf("%d of 40 answers are errors, /readyz answers %d", failed, code)
	}
}

func TestShopFailsForAHeader(t *testing.T) {
	t.Parallel()
	s := startShop(t, buildShop(t), "ready", "SHOP_FAILS_FOR=X-Tester: yes")
	for value, want := range map[string]int{"": http.StatusOK, "no": http.StatusOK, "yes": http.StatusInternalServerError} {
		if code, _ := s.get("/", "X-Tester", value); code != want {
			t.Errorf("X-Tester %q: answered %d, want %d", value, code, want)
		}
	}
}

func TestShopIsSlow(t *testing.T) {
	t.Parallel()
	s := startShop(t, buildShop(t), "ready", "SHOP_SLOW=300ms", "SHOP_SLOWS=50")
	slow := 0
	for range 6 {
		start := time.Now()
		if code, _ := s.get("/"); code != http.StatusOK {
			t.Errorf("answered %d", code)
		}
		if time.Since(start) >= 300*time.Millisecond {
			slow++
		}
	}
	if slow < 3 {
		t.Errorf("%d of 6 answers took 300 ms", slow)
	}
}

func TestShopCrashes(t *testing.T) {
	t.Parallel()
	s := startShop(t, buildShop(t), "ready", "SHOP_CRASHES_AFTER=300ms")
	if err := <-s.ended; s.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
}

func TestShopLeaks(t *testing.T) {
	t.Parallel()
	s := startShop(t, buildShop(t), "ready", "SHOP_LEAKS=200")
	s.until("it has taken 100 MiB", func() bool {
		statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
		fields := strings.Fields(string(statm))
		if err != nil || len(fields) < 2 {
			return false
		}
		pages, _ := strconv.Atoi(fields[1])
		return pages*os.Getpagesize() > 100<<20
	})
}

func TestShopRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	program := buildShop(t)
	for _, setting := range []string{"SHOP_FAILS=many", "SHOP_FAILS=101", "SHOP_SLOW=a bit", "SHOP_SLOWS=-1", "SHOP_CRASHES_AFTER=3", "SHOP_LEAKS=yes"} {
		cmd := exec.Command(program)
		cmd.Env = []string{setting, "SHOP_ADDRESS=127.0.0.1:0"}
		name, _, _ := strings.Cut(setting, "=")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), name+" ") {
			t.Errorf("%s: %v\n%s", setting, err, out)
		}
	}
}

// A rolling update ends pods while they answer.
func TestShopFinishesWhatItAnswers(t *testing.T) {
	t.Parallel()
	s := startShop(t, buildShop(t), "ready")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.until("it is not ready any more", func() bool { code, _ := s.get("/readyz"); return code == http.StatusServiceUnavailable })
	if code, _ := s.get("/"); code != http.StatusOK {
		t.Errorf("after SIGTERM / answers %d while endpoints still send requests", code)
	}
	slow, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	// A server answers once it has read all of a request, so this one is under way until its body comes.
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\n")
	s.until("it takes no more connections", func() bool {
		other, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.address)
		if err == nil {
			other.Close()
		}
		return err != nil
	})
	fmt.Fprint(slow, "x")
	answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatalf("a request under way got no answer: %v", err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("a request under way was answered %d", answer.StatusCode)
	}
	slow.Close()
	if err := <-s.ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
