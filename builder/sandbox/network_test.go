package sandbox_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/builder/sandbox"
)

func online(s *sandbox.Spec) { s.Network = true }

// TestNetwork: a step that asks for the network reaches others, and still not the machine.
func TestNetwork(t *testing.T) {
	w := newWorld(t, nil)
	if os.Geteuid() != 0 {
		if !slices.ContainsFunc(w.Tier().Missing, func(m string) bool { return strings.Contains(m, "loopback of this machine") }) {
			t.Errorf("nothing is said of the network: %q", w.Tier().Missing)
		}
		return
	}
	answer := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintf(rw, "%s of %s", r.URL.Path, r.Host) })
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	own := strings.TrimPrefix(plain.URL, "http://")
	_, port, err := net.SplitHostPort(own)
	if err != nil {
		t.Fatal(err)
	}
	abstract, err := net.Listen("unix", "@slipway-sandbox-test") //nolint:noctx // it stands for a daemon
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	for name, script := range map[string]string{
		"loopback":             "curl -s -m 5 http://" + own,
		"loopback by proxy":    "curl -sf -m 5 --noproxy '' http://" + own,
		"loopback by a tunnel": "curl -sf -m 5 --noproxy '' -p http://" + own,
		"loopback by name":     "curl -sf -m 5 --noproxy '' -p http://localhost:" + port,
		"any address":          "curl -sf -m 5 --noproxy '' http://0.0.0.0:" + port,
		"six in four":          "curl -sf -m 5 --noproxy '' 'http://[::ffff:127.0.0.1]:" + port + "'",
		"the cloud":            "curl -sf -m 5 http://169.254.169.254/latest/meta-data",
		"abstract sockets":     "curl -s -m 5 --abstract-unix-socket slipway-sandbox-test http://x/ || grep @slipway-sandbox-test /proc/net/unix",
		"other interfaces":     "grep -v -e lo: -e Inter -e face /proc/net/dev | grep :",
	} {
		if result, out := w.sh(script, online); result.ExitCode == 0 {
			t.Errorf("%s: it could:\n%s", name, out)
		}
	}
	if _, out := w.sh("curl -s --noproxy '' http://"+own, online); !strings.Contains(out, "belongs to the machine") {
		t.Errorf("it is not told why: %s", out)
	}
	w.DialBy(func(ctx context.Context, network, address string) (net.Conn, error) {
		to := map[string]string{"modules.example:80": plain.Listener.Addr().String(), "modules.example:443": secure.Listener.Addr().String()}[address]
		return new(net.Dialer).DialContext(ctx, network, to)
	})
	if result, out := w.sh("curl -sf http://modules.example/a; curl -sfk https://modules.example/b", online); result.ExitCode != 0 || out != "/a of modules.example/b of modules.example\n" {
		t.Errorf("%+v\n%s", result, out)
	}
	if _, out := w.sh("echo $HTTPS_PROXY", online, func(s *sandbox.Spec) { s.Env = []string{"HTTPS_PROXY=http://127.0.0.1:1"} }); strings.Contains(out, ":1\n") || !strings.Contains(out, "http://127.0.0.1:") {
		t.Errorf("the proxy is %s", out)
	}
}

// TestNetworkEnds: a connection that is open when the step ends does not outlive it.
func TestNetworkEnds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("there the network is that of the machine")
		return
	}
	w := newWorld(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it stands for another machine
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	gone := make(chan error, 1)
	go func() {
		connection, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, connection)
		}
		gone <- err
	}()
	w.DialBy(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
	})
	if result, out := w.sh(`curl -s -p telnet://other.example:1 </dev/zero >/dev/null & sleep 0.5; exit 0`, online); result.ExitCode != 0 {
		t.Errorf("%+v\n%s", result, out)
	}
	if err := <-gone; err != nil {
		t.Log("the other machine saw", err)
	}
}

func TestPermit(t *testing.T) {
	own := []net.Addr{&net.IPNet{IP: net.IPv4(192, 0, 2, 7), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("2001:db8::7"), Mask: net.CIDRMask(64, 128)}}
	for address, want := range map[string]bool{
		"192.0.2.8:443": true, "[2001:db8::8]:443": true, "10.1.2.3:80": true, "[fd00::1]:80": true,
		"192.0.2.7:443": false, "[::ffff:192.0.2.7]:443": false, "[2001:db8::7]:4222": false,
		"127.0.0.1:4222": false, "127.9.9.9:4222": false, "[::1]:4222": false, "[::ffff:127.0.0.1]:4222": false, "0.0.0.0:4222": false, "[::]:4222": false,
		"169.254.169.254:80": false, "[fe80::1%eth0]:80": false, "100.100.100.200:80": false, "[fd00:ec2::254]:80": false,
		"224.0.0.1:80": false, "255.255.255.255:80": false, "name:80": false,
	} {
		if err := sandbox.Permit(address, own); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}
