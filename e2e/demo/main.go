// Command demo plays Slipway's whole story on a Kubernetes of its own and
// observes each step on the API server and in Git.
//
// It exits with 0 only if all of it was seen.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running at the end, until Ctrl-C")
	node := flag.String("node", "auto", "what runs the pods: auto, real (needs root) or kwok (simulated)")
	bin := flag.String("bin", "", "folder with the binaries; those that it lacks are built")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &timeline{out: os.Stdout, start: time.Now()}
	if err := run(ctx, t, *node, *bin, *keep); err != nil {
		if ctx.Err() != nil {
			t.say("interrupted; everything is cleaned up")
			os.Exit(130)
		}
		t.say("FAILED: %s", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, t *timeline, node, bin string, keep bool) (err error) {
	kinds := map[string]cluster.NodeKind{"auto": cluster.NodeAuto, "real": cluster.NodeReal, "kwok": cluster.NodeKwok}
	kind, known := kinds[node]
	if !known {
		return fmt.Errorf("-node %s: want auto, real or kwok", node)
	}
	dir, err := os.MkdirTemp("", "slipway-demo-")
	if err != nil {
		return err
	}
	w, err := world.Start(ctx, world.Options{Dir: dir, Node: kind, Bin: bin, Log: t})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		err = errors.Join(err, w.Stop())
		if err == nil || ctx.Err() != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		} else {
			t.say("logs are in %s", dir)
		}
	}()
	if simulated, why := w.Cluster.Simulated(); simulated {
		t.say("PODS ARE SIMULATED by kwok (%s); all else is real: API server, controllers, agent, Git", why)
	} else {
		t.say("a real Kubernetes on loopback: pods run on a node of its own (kubelet, containerd, runc)")
	}
	s := &story{t: t, w: w}
	if err := s.play(ctx); err != nil {
		s.explain(ctx)
		return err
	}
	t.say("all of it was observed on the API server and in Git")
	if keep {
		s.lookAround()
		<-ctx.Done()
	}
	return nil
}

// lookAround says how to use what is left running.
func (s *story) lookAround() {
	fmt.Fprintf(s.t.out, `
It keeps running until Ctrl-C. In another terminal:

  export KUBECONFIG=%s
  export SLIPWAY_REPO=%s
  export PATH=%s:$PATH
  slipway status
  git clone %s fleet && cd fleet && git log
  tail -f %s
`, s.w.Cluster.Kubeconfig(), s.w.URL, filepath.Dir(s.slipway), s.w.URL, s.agent.Log)
}
