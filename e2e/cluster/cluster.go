package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// NodeKind says what runs the pods of a cluster.
type NodeKind uint8

const (
	NodeAuto NodeKind = iota // NodeReal where that can be had, else NodeKwok
	NodeReal                 // kubelet, containerd and runc in namespaces of their own; needs root
	NodeKwok                 // pods and nodes are simulated
	NodeNone                 // pods stay pending
)

// String returns the word that logs and the command line use.
func (k NodeKind) String() string {
	return [...]string{"auto", "real", "kwok", "none"}[k]
}

// Options of a cluster. The zero value is a cluster in a temporary folder with the best node that the machine can have.
type Options struct {
	Dir       string    // folder for data, logs and kubeconfigs, kept by Stop; empty: a temporary one, removed by Stop
	Name      string    // appears in messages and in the names of cgroups; default "testbed"
	Node      NodeKind  // what runs the pods
	KwokNodes int       // number of simulated nodes; default 1
	AuditLog  bool      // log each request: see [Cluster.AuditLog]
	Registry  *Registry // where pods pull from; without one, simulated pods are always ready
	Ports     []int     // of a real node, which pods with hostNetwork listen on: see [Cluster.Port]
	Log       io.Writer // progress lines; default os.Stderr
}

// startTimeout bounds how long the control plane or a node may take to be ready once everything is built.
const startTimeout = 90 * time.Second

// Cluster is a running Kubernetes. Its methods may be called from several goroutines.
type Cluster struct {
	name      string
	dir       string
	temporary []string // folders that Stop removes
	record    *record  // of what to remove if this process is killed
	node      NodeKind
	reason    string // why pods are simulated
	registry  *Registry
	binary    string
	plane     controlPlane
	runner    runner
	real      *realNode // nil unless NodeReal
	server    string    // https://127.0.0.1:PORT
	rest      *rest.Config
	client    kubernetes.Interface

	args     map[string][]string // of each role that was started
	cleanups []func() error      // run by Stop in reverse order, before the processes are killed
	stop     sync.Once
	stopErr  error
}

// Start builds what is missing and returns once the API server answers, service accounts exist, and the nodes are Ready.
// ctx bounds starting only; Stop ends the cluster.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Log == nil {
		o.Log = os.Stderr
	}
	if o.Name == "" {
		o.Name = "testbed"
	}
	if !nameRE.MatchString(o.Name) {
		return nil, fmt.Errorf("cluster %q: name must be at most 30 lower-case letters, digits and dashes", o.Name)
	}
	if o.KwokNodes == 0 {
		o.KwokNodes = 1
	}
	store, err := newCache(o.Log)
	if err != nil {
		return nil, err
	}
	binary, err := store.roles(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{name: o.Name, registry: o.Registry, binary: binary, node: o.Node, args: map[string][]string{}}
	if err := c.start(ctx, o, store); err != nil {
		err = fmt.Errorf("cluster %s: %w", o.Name, err)
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Prepare builds everything that clusters need on this machine into the cache and returns its folder. Start does the
// same; Prepare lets a build step take the time of it. Progress lines go to log.
func Prepare(ctx context.Context, log io.Writer) (dir string, err error) {
	store, err := newCache(log)
	if err != nil {
		return "", err
	}
	if _, err := store.roles(ctx); err != nil {
		return "", err
	}
	if err := canHaveNode(); err != nil {
		fmt.Fprintf(log, "testbed: pods will be simulated: %v\n", err)
		return store.dir, nil
	}
	if _, err := store.node(ctx); err != nil {
		return "", err
	}
	return store.dir, nil
}

var (
	nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,29}$`)
	userRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,59}$`)
)

func (c *Cluster) start(ctx context.Context, o Options, store cache) (err error) {
	if c.record, err = store.newRecord(c.name); err != nil {
		return err
	}
	if err := c.makeDirs(o.Dir); err != nil {
		return err
	}
	c.real.ports = o.Ports
	if err := c.chooseNode(ctx, store); err != nil {
		return err
	}
	ca, err := newAuthority(filepath.Join(c.dir, "pki"), time.Now)
	if err != nil {
		return err
	}
	c.plane.dir, c.plane.ca, c.plane.audit = c.dir, ca, o.AuditLog
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	switch c.node {
	case NodeReal:
		err = c.startNode(ctx)
	case NodeKwok:
		err = c.startKwok(ctx, o.KwokNodes)
	}
	if err != nil {
		return err
	}
	return c.await(ctx, "service accounts", c.accountsReady)
}

// chooseNode settles NodeAuto, and opens the namespaces of a real node: only trying shows whether they can be had. A
// container may refuse its groups, its mounts or its bridge although its user is root.
func (c *Cluster) chooseNode(ctx context.Context, store cache) error {
	if c.node != NodeAuto && c.node != NodeReal {
		c.reason = "asked for"
		return nil
	}
	err := c.openNode(ctx, store)
	switch {
	case err == nil:
		c.node = NodeReal
		return nil
	case c.node == NodeReal || ctx.Err() != nil:
		return fmt.Errorf("real node: %w", err)
	}
	if err := c.closeNode(); err != nil {
		return fmt.Errorf("real node: %w", err)
	}
	c.runner, c.node, c.reason = nil, NodeKwok, err.Error()
	return nil
}

// leftovers of an earlier cluster in the same folder: a folder may be used again, but its cluster is a new one. Sockets
// are left by whatever was killed, and would keep the next from listening.
var leftovers = []string{
	"etcd", "pki", "audit.log", "kubelet", "containerd", "cni", "cni-data", "pod-logs",
	"etcd.sock", "init.sock", "api.sock", "registry.sock", "containerd.sock", "containerd.sock.ttrpc",
}

// makeDirs makes the cluster's folder, and one for sockets: their paths must stay below 108 bytes.
func (c *Cluster) makeDirs(dir string) error {
	var err error
	if dir == "" {
		if dir, err = c.tempDir("slipway-" + c.name + "-"); err != nil {
			return err
		}
	}
	if c.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	for _, old := range leftovers {
		if err := os.RemoveAll(filepath.Join(c.dir, old)); err != nil {
			return err
		}
	}
	sockets := c.dir
	if len(sockets) > 60 {
		if sockets, err = c.tempDir("slipway-"); err != nil {
			return err
		}
	}
	c.plane.etcdSock = filepath.Join(sockets, "etcd.sock")
	c.real = &realNode{sockets: sockets}
	return nil
}

// tempDir makes a folder that Stop removes.
func (c *Cluster) tempDir(prefix string) (string, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", err
	}
	c.temporary = append(c.temporary, dir)
	return dir, c.record.add("folder", dir)
}

// startControlPlane starts the four roles. The port of the API server is a free one, but another process may take it
// before it is bound: then starting fails and says so.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	c.server = "https://127.0.0.1:" + strconv.Itoa(port)
	server := c.server // as the roles reach it
	if c.node == NodeReal {
		if err := c.relay(ctx, "tcp", strings.TrimPrefix(c.server, "https://"), "unix", c.real.api()); err != nil {
			return err
		}
		c.plane.bind, c.plane.advertise, c.plane.port, c.plane.leases = nodeAddress, nodeAddress, nodeAPIPort, true
		server = fmt.Sprintf("https://%s:%d", nodeAddress, nodeAPIPort)
		if err := c.prepareNode(server); err != nil {
			return err
		}
	} else {
		c.plane.bind, c.plane.advertise, c.plane.port = "127.0.0.1", "127.0.0.1", port
		host, err := newHostRunner(c.binary, c.logs(), c.dir)
		if err != nil {
			return err // c.runner stays nil: there is nothing to stop
		}
		c.runner = host
	}
	if err := c.plane.prepare(server); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.startRole(ctx, roleEtcd, c.plane.etcd()); err != nil {
		return err
	}
	if err := c.startRole(ctx, roleAPIServer, c.plane.apiServer()); err != nil {
		return err
	}
	if c.node == NodeReal { // while the API server starts
		if err := c.startContainerd(ctx); err != nil {
			return err
		}
	}
	if err := c.await(ctx, "API server", c.apiReady); err != nil {
		return err
	}
	if err := c.startRole(ctx, roleControllerManager, c.plane.controllerManager()); err != nil {
		return err
	}
	return c.startRole(ctx, roleScheduler, c.plane.scheduler())
}

// connect writes the administrator's kubeconfig and makes the client that the cluster itself uses.
func (c *Cluster) connect() error {
	if err := c.plane.ca.kubeconfig(c.Kubeconfig(), c.server, "admin", "system:masters"); err != nil {
		return err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.QPS = -1 // no limit: tests measure the product, not the client's patience
	c.rest = cfg
	c.client, err = kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	return nil
}

// apiReady is nil once the API server says that it is ready.
func (c *Cluster) apiReady(ctx context.Context) error {
	var code int
	c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code)
	if code != http.StatusOK {
		return fmt.Errorf("/readyz: status %d", code)
	}
	return nil
}

// await polls check until it returns nil, and fails early when a role has died.
func (c *Cluster) await(ctx context.Context, what string, check func(context.Context) error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if dead := c.runner.exited(); len(dead) > 0 {
			return fmt.Errorf("%s: %s ended: %s (log: %s)", what, dead[0], logTail(c.logs(), dead[0], 4), filepath.Join(c.logs(), dead[0]+".log"))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w (logs: %s)", what, ctx.Err(), err, c.logs())
		case <-tick.C:
		}
	}
}

func (c *Cluster) startRole(ctx context.Context, role string, args []string) error {
	c.args[role] = args
	return c.runner.start(ctx, role, args...)
}

func (c *Cluster) logs() string { return filepath.Join(c.dir, "logs") }

// Stop kills every process and removes what the cluster left on the machine; a folder that was given in
// Options.Dir is kept. It may be called more than once.
func (c *Cluster) Stop() error {
	c.stop.Do(func() {
		var errs []error
		for i := len(c.cleanups) - 1; i >= 0; i-- {
			errs = append(errs, c.cleanups[i]())
		}
		if c.runner != nil {
			errs = append(errs, c.runner.stop())
		}
		if c.real != nil {
			errs = append(errs, c.closeNode())
		}
		for _, dir := range c.temporary {
			errs = append(errs, os.RemoveAll(dir))
		}
		if c.record != nil && errors.Join(errs...) == nil {
			errs = append(errs, c.record.done())
		}
		if err := errors.Join(errs...); err != nil {
			c.stopErr = fmt.Errorf("cluster %s: stop: %w", c.name, err)
		}
	})
	return c.stopErr
}

// freePort returns a TCP port of 127.0.0.1 that nothing listens on.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Kubectl runs kubectl as the administrator and returns its standard output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.binary, append([]string{"kubectl", "--kubeconfig", c.Kubeconfig()}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %q: %w: %s", args, err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}

// onStop registers what Stop does besides killing processes. It runs before they are killed.
func (c *Cluster) onStop(f func() error) { c.cleanups = append(c.cleanups, f) }
