package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
)

// nodeConfig is what the test bed tells node-init, as JSON in the file that is its only argument.
type nodeConfig struct {
	Hostname string    `json:"hostname"`
	Address  string    `json:"address"` // of the bridge, with its prefix: 10.89.0.1/16
	Gateway  string    `json:"gateway"` // default route; nothing need be there
	Scratch  string    `json:"scratch"` // empty folder for a tmpfs
	Control  string    `json:"control"` // unix socket that takes requests
	Forward  []forward `json:"forward"`
}

// forward copies connections between a unix socket in the file system, which crosses network namespaces, and an
// address in the namespace. Networks are "unix" or "tcp".
type forward struct {
	ListenNetwork string `json:"listenNetwork"`
	Listen        string `json:"listen"`
	DialNetwork   string `json:"dialNetwork"`
	Dial          string `json:"dial"`
}

// runNodeInit is process 1 of a node's namespaces: it sets them up, starts and reaps processes, and carries
// connections in and out. When it ends, the kernel ends everything in them.
func runNodeInit() int {
	if err := nodeInit(); err != nil {
		fmt.Fprintln(os.Stderr, "node-init:", err)
		return 1
	}
	return 0
}

func nodeInit() error {
	if len(os.Args) != 2 || os.Getpid() != 1 {
		return errors.New("usage: node-init CONFIG, as process 1 of new namespaces")
	}
	b, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var cfg nodeConfig
	if err := json.Unmarshal(b, &cfg); err != nil {
		return fmt.Errorf("%s: %w", os.Args[1], err)
	}
	if err := setUpMounts(cfg); err != nil {
		return err
	}
	if err := setUpNetwork(cfg); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	for _, f := range cfg.Forward {
		if err := f.serve(); err != nil {
			return err
		}
	}
	t := &table{running: map[string]*process{}}
	go t.reap()
	l, err := net.Listen("unix", cfg.Control)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		go t.serve(conn)
	}
}

// setUpMounts keeps what happens here away from the host, and the host's runtime state away from the node.
func setUpMounts(cfg nodeConfig) error {
	type mount struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}
	mounts := []mount{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"", "/", "", syscall.MS_REC | syscall.MS_SHARED, ""}, // kubelet's volumes need a shared tree: shared in here only
		{"proc", "/proc", "proc", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, ""}, // network namespaces, xtables lock, containerd
		{"tmpfs", "/var/log", "tmpfs", 0, ""},
	}
	if _, err := os.Stat("/var/lib/kubelet"); err == nil {
		mounts = append(mounts, mount{"tmpfs", "/var/lib/kubelet", "tmpfs", 0, ""})
	} else {
		mounts = append(mounts, mount{"tmpfs", cfg.Scratch, "tmpfs", 0, ""})
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	if mounts[len(mounts)-1].target == cfg.Scratch {
		if err := overlay("/var/lib", cfg.Scratch); err != nil {
			return err
		}
	}
	// Hybrid machines have an empty version 2 tree beside version 1; runc would take it for the real one.
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		if err := syscall.Unmount("/sys/fs/cgroup/unified", syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("umount /sys/fs/cgroup/unified: %w", err)
		}
	}
	return os.MkdirAll("/run/netns", 0o755)
}

// overlay makes dir writable in here without writing to the host's.
func overlay(dir, scratch string) error {
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
	if err := syscall.Mount("overlay", dir, "overlay", 0, data); err != nil {
		return fmt.Errorf("overlay on %s: %w", dir, err)
	}
	return nil
}

func setUpNetwork(cfg nodeConfig) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("cni0: %w (the kernel needs bridges)", err)
	}
	addr, err := netlink.ParseAddr(cfg.Address)
	if err != nil {
		return fmt.Errorf("cni0: %w", err)
	}
	if err := netlink.AddrAdd(bridge, addr); err != nil {
		return fmt.Errorf("cni0: %w", err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("cni0: %w", err)
	}
	// kubelet and kube-proxy insist on a default route.
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Index, Gw: net.ParseIP(cfg.Gateway)}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

func (f forward) serve() error {
	l, err := net.Listen(f.ListenNetwork, f.Listen)
	if err != nil {
		return fmt.Errorf("forward %s: %w", f.Listen, err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.carry(conn)
		}
	}()
	return nil
}

// carry copies both ways, and passes the end of either direction on.
func (f forward) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial(f.DialNetwork, f.Dial)
	if err != nil {
		return
	}
	defer out.Close()
	var both sync.WaitGroup
	both.Go(func() { pipe(out, in) })
	both.Go(func() { pipe(in, out) })
	both.Wait()
}
