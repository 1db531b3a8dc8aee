// Command slipway is what people type: it edits the environment repo with their
// own credentials, and reads clusters with their kubeconfig.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
)

func main() {
	wire.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	g := &globals{out: os.Stdout, env: os.Getenv, terminal: terminalOf(os.Stdout, os.Getenv)}
	os.Exit(execute(ctx, g, os.Args[1:], func(err error) { g.complain(os.Stderr, err) }))
}
