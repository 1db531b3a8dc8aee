// Command testbed prepares and runs the clusters of package cluster by hand.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

const usage = `usage:
  testbed build                build everything that clusters need into the cache
  testbed up [flags]           run a cluster until Ctrl-C and print its KUBECONFIG
    -node auto|real|kwok|none  what runs the pods (default auto)
    -kwok-nodes N              number of simulated nodes (default 1)
    -dir DIR                   folder for data and logs, kept (default: a temporary one)
    -audit                     log each request to DIR/audit.log
    -registry DIR              serve a registry with its content in DIR
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "build":
		dir, err := cluster.Prepare(ctx, os.Stderr)
		if err != nil {
			return err
		}
		fmt.Println(dir)
		return nil
	case len(args) >= 1 && args[0] == "up":
		return up(ctx, args[1:])
	default:
		return fmt.Errorf("unknown arguments %q\n%s", args, usage)
	}
}

func up(ctx context.Context, args []string) (err error) {
	o := cluster.Options{Log: os.Stderr}
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	node := flags.String("node", "auto", "")
	registry := flags.String("registry", "", "")
	flags.IntVar(&o.KwokNodes, "kwok-nodes", 1, "")
	flags.StringVar(&o.Dir, "dir", "", "")
	flags.BoolVar(&o.AuditLog, "audit", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	kinds := map[string]cluster.NodeKind{"auto": cluster.NodeAuto, "real": cluster.NodeReal, "kwok": cluster.NodeKwok, "none": cluster.NodeNone}
	kind, ok := kinds[*node]
	if !ok {
		return fmt.Errorf("-node %s: must be auto, real, kwok or none", *node)
	}
	o.Node = kind
	if *registry != "" {
		if o.Registry, err = cluster.StartRegistry(ctx, *registry); err != nil {
			return err
		}
		defer o.Registry.Close()
		fmt.Println("registry:", o.Registry.Host())
	}
	begin := time.Now()
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return err
	}
	if simulated, reason := c.Simulated(); simulated {
		fmt.Printf("pods are simulated: %s\n", reason)
	}
	fmt.Printf("up in %s; Ctrl-C ends it\nexport KUBECONFIG=%s\n", time.Since(begin).Round(10*time.Millisecond), c.Kubeconfig())
	<-ctx.Done()
	return c.Stop()
}
