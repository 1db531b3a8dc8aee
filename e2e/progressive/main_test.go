package progressive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/prometheus"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/render"
)

// shared is the one port of all stories. The first of them opens it.
var shared struct {
	once  sync.Once
	port  *port
	err   error
	close []func()
}

const renderChild = "render-child"

// TestMain makes the test binary its own render child, and closes the port.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == renderChild {
		if err := render.Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	for i := len(shared.close) - 1; i >= 0; i-- {
		shared.close[i]()
	}
	if p := shared.port; p != nil && code == 0 {
		_ = os.RemoveAll(p.Dir)
	}
	os.Exit(code)
}

// newPort returns the port, with a gateway, a Prometheus and an agent. Each story has an app of its own there.
func newPort(tb testing.TB) *port {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("a real node needs root and namespaces")
	}
	shared.once.Do(func() { shared.port, shared.err = openPort(context.Background()) })
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.port
}

func openPort(ctx context.Context) (*port, error) {
	dir, err := os.MkdirTemp("", "slipway-progressive-")
	if err != nil {
		return nil, err
	}
	var log strings.Builder
	w, err := world.Start(ctx, world.Options{Dir: dir, Node: cluster.NodeReal, AuditLog: true, Ports: []int{webPort, metricsPort}, Log: &log})
	if err != nil {
		return nil, fmt.Errorf("%s\n%w", &log, err)
	}
	shared.close = append(shared.close, func() { _ = w.Stop() })
	p := &port{World: w, pushes: newPushes()}
	p.OnPush(p.pushes.note)
	if err := p.images(ctx); err != nil {
		return nil, err
	}
	_, err = p.Commit(ctx, "Start", world.Write("slipway.yaml", delivery), world.Write("README.md", "# Fleet\n"),
		world.Write("clusters/demo/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: harbour}\n"))
	if err := errors.Join(err, p.Install(ctx), p.openGateway(ctx, &log)); err != nil {
		return nil, fmt.Errorf("%s\n%w", &log, err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if p.renderer, err = render.New(render.Options{Command: []string{self, renderChild}, Workers: 1, MemoryBytes: 1 << 30}); err != nil {
		return nil, err
	}
	shared.close = append(shared.close, func() { _ = p.renderer.Close() })
	measured := filepath.Join(dir, "prometheus")
	if err := os.MkdirAll(measured, 0o700); err != nil {
		return nil, err
	}
	server, err := prometheus.Start(ctx, prometheus.Options{Dir: measured, Targets: []string{p.Cluster.Port(metricsPort)}, Log: &log})
	if err != nil {
		return nil, err
	}
	shared.close = append(shared.close, server.Kill)
	p.agent, err = p.StartAgent(ctx, world.AgentOptions{Args: []string{"--prometheus", "http://" + server.Address}})
	return p, err
}
