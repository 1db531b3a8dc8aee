package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// network is the one of a single command: a namespace whose only way out is a proxy of this process. What listens on the
// machine, like the queue, on its loopback, on an abstract socket or on an address of its own, is not there.
type network struct {
	space   *os.File
	address string // of the proxy, inside
	proxy   *proxy
	done    sync.WaitGroup
}

const (
	// connections is how many a command may hold at once: each costs this process two descriptors.
	connections = 256
	dialTimeout = 30 * time.Second
)

// newNetwork makes a namespace with nothing but loopback and a proxy that listens there. It needs root.
func newNetwork(dial dialer) (*network, error) {
	n := &network{proxy: newProxy(dial)}
	var listener net.Listener
	var err error
	n.done.Go(func() {
		// This thread has the namespace and no other one: it ends with the goroutine, as it is never unlocked.
		runtime.LockOSThread()
		n.space, listener, err = enterNew()
	})
	n.done.Wait()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	n.address = listener.Addr().String()
	n.done.Go(func() { n.proxy.serve(netutil.LimitListener(listener, connections)) })
	return n, nil
}

// enterNew moves the calling thread into a new namespace and listens there.
func enterNew() (*os.File, net.Listener, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return nil, nil, err
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, loopback); err != nil {
		return nil, nil, err
	}
	space, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // a literal address: nothing to wait for
	if err != nil {
		return nil, nil, errors.Join(err, space.Close())
	}
	return space, listener, nil
}

// path is where runc finds the namespace.
func (n *network) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.space.Fd()) }

// environment tells programs of the proxy, in the spellings that are in use. Another proxy that env names is out of reach.
func (n *network) environment(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
	for _, name := range []string{"http_proxy", "https_proxy", "all_proxy"} {
		env = append(env, name+"=http://"+n.address, strings.ToUpper(name)+"=http://"+n.address)
	}
	const direct = "=localhost,127.0.0.1,::1"
	return append(env, "no_proxy"+direct, "NO_PROXY"+direct)
}

// close ends all connections; the namespace goes with the last process in it.
func (n *network) close() error {
	n.proxy.close()
	n.done.Wait()
	return n.space.Close()
}

// dialer connects to host:port.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// errRefused is what a command hears of an address that it may not reach.
var errRefused = errors.New("refused: it belongs to the machine that runs the step")

// dialOthers connects to other machines. Addresses are judged after names are resolved, right before each connection, so
// that a name cannot mean something else meanwhile.
func dialOthers(ctx context.Context, kind, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Control: func(_, to string, _ syscall.RawConn) error {
		own, err := net.InterfaceAddrs()
		if err != nil {
			return err
		}
		return permit(to, own)
	}}
	return d.DialContext(ctx, kind, address)
}

// metadata are addresses at which clouds hand credentials to the machine, other than link-local ones.
var metadata = [...]netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200")} //nolint:gochecknoglobals // a constant list

// permit refuses addresses of a machine whose own ones are given.
func permit(address string, own []net.Addr) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := to.Addr().Unmap().WithZone("")
	// IsGlobalUnicast is neither loopback nor link-local, multicast, broadcast or unspecified.
	if !ip.IsGlobalUnicast() || slices.Contains(metadata[:], ip) {
		return fmt.Errorf("%s: %w", address, errRefused)
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == ip {
			return fmt.Errorf("%s: %w", address, errRefused)
		}
	}
	return nil
}
