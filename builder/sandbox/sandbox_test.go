package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder/sandbox"
)

// nobody is the user that the rootless tier is tested as.
const nobody = 65534

// runcOf returns a runc for all tests: the machine's, or one that is built into the user's cache once.
func runcOf(t testing.TB) string {
	t.Helper()
	if runc := os.Getenv("SANDBOX_TEST_RUNC"); runc != "" {
		return runc
	}
	if runc, err := exec.LookPath("runc"); err == nil {
		return runc
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "slipway", "sandbox")
	s, err := sandbox.New(t.Context(), sandbox.Options{Cache: cache, State: open(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(cache, "runc-*", "runc"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no runc in %s: %v", cache, err)
	}
	return slices.Min(found) // "runc-V-seccomp/" sorts before "runc-V/"
}

// open makes a folder that other users may pass.
func open(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

type world struct {
	testing.TB
	*sandbox.Sandbox
	workspace string

	mu     sync.Mutex
	serial int
}

func newWorld(t testing.TB, change func(*sandbox.Options)) *world {
	t.Helper()
	options := sandbox.Options{Runc: runcOf(t), State: open(t)}
	if change != nil {
		change(&options)
	}
	s, err := sandbox.New(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, Sandbox: s, workspace: filepath.Join(open(t), "job")}
	if err := os.Mkdir(w.workspace, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := filepath.Glob(filepath.Join(options.State, "*")); err != nil || !slices.Equal(names(left), []string{"containers", "lock"}) && s.Tier().Isolated {
			t.Errorf("left in the state folder: %v %v", left, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func names(paths []string) (out []string) {
	for _, p := range paths {
		out = append(out, filepath.Base(p))
	}
	return out
}

// sh runs a script and returns how it ended and what it printed.
func (w *world) sh(script string, change ...func(*sandbox.Spec)) (sandbox.Result, string) {
	w.Helper()
	result, out, err := w.try(w.Context(), script, change...)
	if err != nil {
		w.Fatalf("%s: %v\n%s", script, err, out)
	}
	return result, out
}

func (w *world) try(ctx context.Context, script string, change ...func(*sandbox.Spec)) (sandbox.Result, string, error) {
	w.mu.Lock()
	w.serial++
	id := fmt.Sprintf("test-%d", w.serial)
	w.mu.Unlock()
	var out strings.Builder
	spec := sandbox.Spec{
		ID: id, Workspace: w.workspace, Command: []string{"/bin/sh", "-c", script}, Env: []string{"HOME=/tmp"}, Timeout: 30 * time.Second,
		Output: func(_ string, line []byte) { out.Write(append(line, '\n')) },
	}
	for _, c := range change {
		c(&spec)
	}
	result, err := w.Run(ctx, spec)
	return result, out.String(), err
}

// TestRootless plays TestIsolation, TestLimits and the like as a user without rights.
func TestRootless(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("this is that user already")
		return
	}
	dir := open(t)
	copyOf := func(from, name string) string {
		t.Helper()
		to := filepath.Join(dir, name)
		source, err := os.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(target, source); err != nil {
			t.Fatal(err)
		}
		if err := target.Close(); err != nil {
			t.Fatal(err)
		}
		return to
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copyOf(self, "sandbox.test"), "-test.v", "-test.run", "^(TestIsolation|TestSystemCalls|TestLimits|TestRootFS|TestNetwork|TestKilled|TestOutput|TestTimeout|TestSweep|TestParallel|TestNothingLeft|TestTerminated)$")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "SANDBOX_TEST_RUNC="+copyOf(runcOf(t), "runc"), "HOME="+home, "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestIsolation") || strings.Contains(string(out), "--- SKIP") {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), sandbox.TierRootless) {
		t.Errorf("another tier:\n%s", out)
	}
}

// TestIsolation lets a step try what it must not be able to do.
func TestIsolation(t *testing.T) {
	w := newWorld(t, nil)
	tier := w.Tier()
	t.Logf("tier %s, missing %q", tier.Name, tier.Missing)
	if want := map[bool]string{true: sandbox.TierRoot, false: sandbox.TierRootless}[os.Geteuid() == 0]; tier.Name != want || !tier.Isolated {
		t.Fatalf("tier %+v, want %s", tier, want)
	}
	t.Setenv("REGISTRY_PASSWORD", "sesame of the registry")
	others := open(t)
	key, other := filepath.Join(others, "cosign.key"), filepath.Join(others, "job-2")
	if err := errors.Join(os.WriteFile(key, []byte("the signing key"), 0o644), os.Mkdir(other, 0o777), os.Chmod(other, 0o777),
		os.WriteFile(filepath.Join(other, "secret"), []byte("of another job"), 0o666)); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it stands for the queue
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(connection, "INFO of the queue\r\n")
			_ = connection.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	if err := os.Symlink("/../../../../../../.."+key, filepath.Join(w.workspace, "link")); err != nil {
		t.Fatal(err)
	}
	shared := open(t)
	if err := os.WriteFile(filepath.Join(shared, "cached"), []byte("cached"), 0o666); err != nil {
		t.Fatal(err)
	}
	readOnly := func(s *sandbox.Spec) {
		s.Mounts = append(s.Mounts, sandbox.Mount{Source: shared, Target: "/cache"})
	}
	for name, script := range map[string]string{
		"the signing key":             "cat " + key,
		"the signing key by a link":   "cat /workspace/link",
		"the server's environment":    `env | grep sesame || cat /proc/*/environ | tr '\0' '\n' | grep sesame`,
		"another job's workspace":     "cat " + other + "/secret || ls " + others,
		"another job through parents": "cat /workspace/../../*/secret",
		"processes of the machine":    `test "$(ls -d /proc/[0-9]* | wc -l)" -gt 6`,
		"killing one of them":         fmt.Sprintf("kill -0 %d", os.Getpid()),
		"the port of the queue":       "exec 3<>/dev/tcp/127.0.0.1/" + port + " && head -1 <&3",
		"the port by curl":            "curl -s --max-time 2 telnet://127.0.0.1:" + port + " </dev/null | grep INFO",
		"the network":                 "grep -v -e lo: -e Inter -e face /proc/net/dev | grep :",
		"writing to the root":         "touch /usr/x || touch /etc/x || touch /x",
		"writing to a shared cache":   "echo poison > /cache/cached",
		"home folders":                "ls /home || ls /root || ls /var/lib",
		"passwords of the machine":    "cat /etc/shadow || grep -q daemon /etc/passwd",
		"mounting":                    "mount -t tmpfs none /tmp || mount --bind /tmp /usr",
		"a namespace with rights":     "unshare -m mount -t tmpfs none /tmp",
		"making a device":             "mknod /tmp/disk b 8 0",
		"the disks":                   "ls /dev/sd* /dev/vd* /dev/nvme* /dev/mem /dev/kmsg",
		"the kernel's log":            "dmesg",
		"the kernel's settings":       "echo 1 > /proc/sys/kernel/panic || echo b > /proc/sysrq-trigger",
		"capabilities":                "grep CapEff /proc/self/status | grep -v 0000000000000000 || grep CapBnd /proc/self/status | grep -v 0000000000000000",
		"new privileges":              "grep 'NoNewPrivs:.0' /proc/self/status",
		"the socket of a daemon":      "ls /run/docker.sock /var/run/docker.sock /run/containerd",
		"the host's name":             "hostname owned",
		"owning what is not its own":  "chown 1 /workspace",
	} {
		t.Run(name, func(t *testing.T) {
			// bash knows /dev/tcp; what is not installed is as good as refused.
			result, out := w.sh("bash -c '"+strings.ReplaceAll(script, "'", `'\''`)+"'", readOnly)
			if result.ExitCode == 0 {
				t.Errorf("it could:\n%s", out)
			}
			for _, secret := range []string{"the signing key", "sesame", "of another job", "INFO"} {
				if strings.Contains(out, secret) {
					t.Errorf("it has read:\n%s", out)
				}
			}
		})
	}
	if content, err := os.ReadFile(filepath.Join(shared, "cached")); err != nil || string(content) != "cached" {
		t.Errorf("the cache now says %q, %v", content, err)
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t, nil)
	result, out := w.sh("for i in $(seq 50); do sleep 20 & done; wait", func(s *sandbox.Spec) { s.PIDs, s.Timeout = 20, 10*time.Second })
	if result.ExitCode == 0 || !strings.Contains(strings.ToLower(out), "fork") {
		t.Errorf("50 processes of 20: %+v %s", result, out)
	}
	if slices.ContainsFunc(w.Tier().Missing, func(m string) bool { return strings.HasPrefix(m, "limits") }) {
		if os.Geteuid() == 0 {
			t.Errorf("root has no limits: %v", w.Tier().Missing)
		}
		return
	}
	result, out = w.sh("head -c 200m /dev/zero | tail -c 200m | wc -c", func(s *sandbox.Spec) { s.Memory = 64 << 20 })
	if !result.OOMKilled {
		t.Errorf("200 MB in 64: %+v %s", result, out)
	}
	_, out = w.sh("timeout 1 sh -c 'while :; do :; done'; times | tail -1", func(s *sandbox.Spec) { s.CPUs = 0.25 })
	if used, err := time.ParseDuration(strings.TrimPrefix(strings.Fields(out + " ?")[0], "0m")); err != nil || used > 700*time.Millisecond {
		t.Errorf("a quarter of a CPU for a second: %s of %q %v", used, out, err)
	}
	result, out = w.sh("head -c 200m /dev/zero >/tmp/full", func(s *sandbox.Spec) { s.Memory = 64 << 20 })
	if result.ExitCode == 0 {
		t.Errorf("200 MB in /tmp: %+v %s", result, out)
	}
}

func TestOutput(t *testing.T) {
	w := newWorld(t, nil)
	var lines []string
	collect := func(s *sandbox.Spec) {
		s.Output = func(stream string, line []byte) { lines = append(lines, stream+" "+string(line)) }
	}
	result, _ := w.sh("echo out; echo err >&2; printf 'no end'; exit 3", collect)
	slices.Sort(lines)
	if want := []string{"stderr err", "stdout no end", "stdout out"}; result.ExitCode != 3 || !slices.Equal(lines, want) {
		t.Errorf("%+v %q", result, lines)
	}
	lines = nil
	w.sh("head -c 200000 /dev/zero | tr '\\0' x; echo", collect)
	total, longest := 0, 0
	for _, line := range lines {
		total, longest = total+len(line)-len("stdout "), max(longest, len(line))
	}
	if total != 200000 || longest > 70000 {
		t.Errorf("%d bytes in %d lines, the longest of %d", total, len(lines), longest)
	}
	// What a command leaves behind holds nobody up.
	start := time.Now()
	if result, _ := w.sh("sleep 60 & exit 0"); result.ExitCode != 0 || time.Since(start) > 20*time.Second {
		t.Errorf("%+v after %s", result, time.Since(start))
	}
	if result, _ := w.sh("kill -9 $$"); result.ExitCode != 0 && result.ExitCode != 137 {
		t.Errorf("%+v", result)
	}
	if _, out := w.sh("env", func(s *sandbox.Spec) { s.Env = []string{"A=b"} }); strings.Contains(out, "SANDBOX") || !strings.Contains(out, "A=b\n") {
		t.Errorf("environment:\n%s", out)
	}
}

func TestTimeout(t *testing.T) {
	w := newWorld(t, nil)
	result, _ := w.sh("trap '' TERM; sleep 60 & sleep 60", func(s *sandbox.Spec) { s.Timeout = 300 * time.Millisecond })
	if !result.TimedOut || result.Duration > 10*time.Second {
		t.Errorf("%+v", result)
	}
}

// TestKilled ends commands from outside, at any moment of their life, several at a time.
func TestKilled(t *testing.T) {
	w := newWorld(t, nil)
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*i)*3*time.Millisecond)
			defer cancel()
			if _, _, err := w.try(ctx, "sleep 4711"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %d ms: %v", i*i*3, err)
			}
		})
	}
	running.Wait()
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-f", "^sleep 4711").Output(); err == nil {
		t.Errorf("still there: %s", out)
	}
}

// TestSweep: what a process that was killed left behind is ended by the next one with the same folder.
func TestSweep(t *testing.T) {
	state := open(t)
	w := newWorld(t, func(o *sandbox.Options) { o.State = state })
	if _, err := sandbox.New(t.Context(), sandbox.Options{Runc: runcOf(t), State: state}); err == nil || !strings.Contains(err.Error(), "another process uses") {
		t.Errorf("two in one folder: %v", err)
	}
	begun := make(chan struct{})
	ended := make(chan sandbox.Result, 1)
	go func() {
		result, _, _ := w.try(t.Context(), "echo begun; sleep 4712", func(s *sandbox.Spec) {
			s.Output = func(string, []byte) { close(begun) }
			s.Timeout = time.Minute
		})
		ended <- result
	}()
	<-begun
	if err := w.Close(); err != nil { // as if it had died
		t.Fatal(err)
	}
	again, err := sandbox.New(t.Context(), sandbox.Options{Runc: runcOf(t), State: state})
	if err != nil {
		t.Fatal(err)
	}
	if result := <-ended; result.ExitCode == 0 {
		t.Errorf("it ended by itself: %+v", result)
	}
	w.Sandbox = again
}

func TestWithoutIsolation(t *testing.T) {
	broken := func(o *sandbox.Options) { o.Runc = "/bin/false" }
	if _, err := sandbox.New(t.Context(), sandbox.Options{Runc: "/bin/false", State: open(t)}); err == nil || !strings.Contains(err.Error(), "allow unisolated steps explicitly") {
		t.Errorf("got %v", err)
	}
	w := newWorld(t, func(o *sandbox.Options) { broken(o); o.AllowUnisolated = true })
	if tier := w.Tier(); tier.Name != sandbox.TierNone || tier.Isolated || len(tier.Missing) == 0 {
		t.Errorf("%+v", tier)
	}
	t.Setenv("REGISTRY_PASSWORD", "sesame")
	cache := open(t)
	result, out := w.sh("pwd; env; echo x > /cache/made 2>/dev/null; echo $CACHE; sleep 60 &", func(s *sandbox.Spec) {
		s.Env = []string{"CACHE=/cache/x"}
		s.Mounts = []sandbox.Mount{{Source: cache, Target: "/cache", Writable: true}}
	})
	if result.ExitCode != 0 || strings.Contains(out, "sesame") || !strings.HasPrefix(out, w.workspace+"\n") || !strings.Contains(out, cache+"/x\n") {
		t.Errorf("%+v\n%s", result, out)
	}
}

// BenchmarkStart compares a command in the sandbox with the same one as a plain process.
func BenchmarkStart(b *testing.B) {
	for name, change := range map[string]func(*sandbox.Options){
		"runc": nil, "plain": func(o *sandbox.Options) { o.Runc, o.AllowUnisolated = "/bin/false", true },
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, change)
			for b.Loop() {
				w.sh("true")
			}
		})
	}
}
