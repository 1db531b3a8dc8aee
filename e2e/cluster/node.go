package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
)

// A real node's addresses, inside a network namespace of its own.
const (
	nodeName       = "node-0"
	nodeAddress    = "10.89.0.1" // of the bridge that pods are on
	nodeGateway    = "10.89.255.254"
	nodeAPIPort    = 6443
	kubeletPort    = 10250
	roleContainerd = "containerd"
)

// realNode is what a real node needs beside the control plane.
type realNode struct {
	tools   nodeTools
	cgroups cgroups // no root: none were made
	sockets string
	ports   []int          // that are reached from outside
	reached map[int]string // by port, HOST:PORT here
}

// api is the socket of the API server, which crosses the border of the namespaces.
func (n *realNode) api() string { return filepath.Join(n.sockets, "api.sock") }

// openNode makes all of a real node that needs no control plane: groups, tools, namespaces. What it made is for closeNode
// to take away, also after an error.
func (c *Cluster) openNode(ctx context.Context, store cache) error {
	if err := canHaveNode(); err != nil {
		return err
	}
	if err := c.visibleInside(); err != nil {
		return err
	}
	groups, err := newCgroups(c.name)
	if err != nil {
		return err
	}
	if err := c.record.add("cgroup", groups.root); err != nil {
		return err
	}
	c.real.cgroups = groups
	if err := groups.create(); err != nil {
		return err
	}
	if c.real.tools, err = store.node(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.openNamespaces(ctx)
}

// closeNode ends the namespaces and removes the groups, as far as there are any.
func (c *Cluster) closeNode() error {
	if c.real.cgroups.root == "" {
		return nil
	}
	var errs []error
	if c.runner != nil {
		errs = append(errs, c.runner.stop())
	}
	return errors.Join(append(errs, c.real.cgroups.remove())...)
}

// hiddenInside are the folders that node-init replaces, so that nothing in them crosses the border.
var hiddenInside = []string{"/run/", "/var/log/", "/var/lib/"}

// visibleInside refuses folders that the node could not share with this process.
func (c *Cluster) visibleInside() error {
	for _, dir := range []string{c.dir, c.real.sockets} {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		for _, hidden := range hiddenInside {
			if strings.HasPrefix(real+"/", hidden) {
				return fmt.Errorf("%s: a real node has a %s of its own (choose another folder, or set TMPDIR)", dir, hidden)
			}
		}
	}
	return nil
}

// openNamespaces makes the node's namespaces and the relays in and out of them, and makes them where roles run.
func (c *Cluster) openNamespaces(ctx context.Context) error {
	n := c.real
	host, err := newHostRunner(c.binary, c.logs(), c.dir)
	if err != nil {
		return err
	}
	r := &namespaceRunner{
		host:    host,
		control: filepath.Join(n.sockets, "init.sock"),
		logs:    c.logs(),
		binary:  c.binary,
		paths:   map[string]string{roleContainerd: filepath.Join(n.tools.containerd, "containerd")},
		env: []string{
			"PATH=" + strings.Join([]string{n.tools.programs, n.tools.containerd, "/usr/sbin:/usr/bin:/sbin:/bin"}, ":"),
			"HOME=" + c.dir,
		},
	}
	c.runner = r
	scratch := filepath.Join(c.dir, "scratch")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	cfg := nodeInitConfig{Hostname: nodeName, Address: nodeAddress + "/16", Gateway: nodeGateway, Scratch: scratch, Control: r.control}
	cfg.Forward = append(cfg.Forward, nodeForward{"unix", n.api(), "tcp", fmt.Sprintf("%s:%d", nodeAddress, nodeAPIPort)})
	if c.registry != nil {
		socket := filepath.Join(n.sockets, "registry.sock")
		if err := c.relay(ctx, "unix", socket, "tcp", c.RegistryHost()); err != nil {
			return err
		}
		cfg.Forward = append(cfg.Forward, nodeForward{"tcp", c.RegistryHost(), "unix", socket})
	}
	if err := c.openPorts(ctx, &cfg); err != nil {
		return err
	}
	return r.open(ctx, c.dir, cfg)
}

// openPorts leads from addresses here to ports of the node.
func (c *Cluster) openPorts(ctx context.Context, cfg *nodeInitConfig) error {
	c.real.reached = map[int]string{}
	for _, port := range c.real.ports {
		socket := filepath.Join(c.real.sockets, fmt.Sprintf("port-%d.sock", port))
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by what was killed
			return err
		}
		r, err := newRelay(ctx, "tcp", "127.0.0.1:0", "unix", socket)
		if err != nil {
			return err
		}
		c.onStop(r.close)
		c.real.reached[port] = r.listener.Addr().String()
		cfg.Forward = append(cfg.Forward, nodeForward{"unix", socket, "tcp", fmt.Sprintf("%s:%d", nodeAddress, port)})
	}
	return nil
}

func (c *Cluster) relay(ctx context.Context, listenNetwork, listen, dialNetwork, dial string) error {
	r, err := newRelay(ctx, listenNetwork, listen, dialNetwork, dial)
	if err != nil {
		return err
	}
	c.onStop(r.close)
	return nil
}

// startContainerd starts containerd and gives it the pause image. It needs nothing of the control plane.
func (c *Cluster) startContainerd(ctx context.Context) error {
	data := c.nodeFiles()
	for _, dir := range []string{data.CNIConfig, filepath.Join(c.dir, "kubelet")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	for path, text := range map[string]string{
		filepath.Join(c.dir, "containerd.toml"):              containerdConfig,
		filepath.Join(data.CNIConfig, "10-testbed.conflist"): cniConfig,
		filepath.Join(c.dir, "kubelet.yaml"):                 kubeletConfig,
	} {
		if err := writeTemplate(path, text, data); err != nil {
			return err
		}
	}
	if err := c.startRole(ctx, roleContainerd, []string{"--config", filepath.Join(c.dir, "containerd.toml")}); err != nil {
		return err
	}
	return c.await(ctx, "containerd", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", data.Containerd)
		if err != nil {
			return err
		}
		conn.Close()
		ctr := exec.CommandContext(ctx, filepath.Join(c.real.tools.containerd, "ctr"), "--address", data.Containerd, "--namespace", "k8s.io",
			"images", "import", "--local=false", c.real.tools.pause)
		if out, err := ctr.CombinedOutput(); err != nil {
			return fmt.Errorf("pause image: %w: %s", err, out)
		}
		return nil
	})
}

// startNode starts kubelet and kube-proxy and waits until the node is Ready.
func (c *Cluster) startNode(ctx context.Context) error {
	if err := c.startRole(ctx, roleKubelet, []string{
		"--config=" + filepath.Join(c.dir, "kubelet.yaml"),
		"--kubeconfig=" + c.plane.ca.path("kubelet.kubeconfig"),
		"--root-dir=" + filepath.Join(c.dir, "kubelet"),
		"--cert-dir=" + filepath.Join(c.dir, "kubelet", "pki"),
		"--hostname-override=" + nodeName,
		"--node-ip=" + nodeAddress,
	}); err != nil {
		return err
	}
	if err := c.startRole(ctx, roleKubeProxy, []string{
		"--kubeconfig=" + c.plane.ca.path("kube-proxy.kubeconfig"),
		"--hostname-override=" + nodeName,
		"--proxy-mode=nftables",
		"--cluster-cidr=" + podNetwork,
		"--conntrack-max-per-core=0", // host-wide settings are not ours
		"--conntrack-min=0",
	}); err != nil {
		return err
	}
	return c.await(ctx, "node", c.nodesReady(1))
}

// prepareNode issues what the kubelet needs.
func (c *Cluster) prepareNode(server string) error {
	ca := c.plane.ca
	if err := ca.serve("kubelet-server", "system:node:"+nodeName, []string{"system:nodes"}, nodeName, nodeAddress); err != nil {
		return err
	}
	return ca.kubeconfig(ca.path("kubelet.kubeconfig"), server, "system:node:"+nodeName, "system:nodes")
}

// nodeFiles is what the templates of a node's configuration files need.
type nodeFiles struct {
	Dir, PKI, Containerd, CNIConfig, CNIPlugins, Runc, Pause, PodNetwork, CgroupRoot string
	V1                                                                               bool
	Port                                                                             int
}

func (c *Cluster) nodeFiles() nodeFiles {
	return nodeFiles{
		Dir:        c.dir,
		PKI:        c.plane.ca.dir,
		Containerd: filepath.Join(c.real.sockets, "containerd.sock"),
		CNIConfig:  filepath.Join(c.dir, "cni"),
		CNIPlugins: c.real.tools.cni,
		Runc:       filepath.Join(c.real.tools.programs, "runc"),
		Pause:      pauseImage,
		PodNetwork: podNetwork,
		CgroupRoot: c.real.cgroups.root,
		V1:         !c.real.cgroups.unified,
		Port:       kubeletPort,
	}
}

func writeTemplate(path, text string, data any) error {
	t, err := template.New(filepath.Base(path)).Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	if err := t.Execute(f, data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return f.Close()
}

// canHaveNode says what a real node lacks here, without trying everything.
func canHaveNode() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("namespaces cannot be made: %w", err)
	}
	return nil
}
