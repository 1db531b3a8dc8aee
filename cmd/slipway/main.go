// Command slipway is what people type: it edits the environment repo with their
// own credentials, and reads clusters with their kubeconfig.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
)

func main() {
	wire.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, &globals{out: os.Stdout, env: os.Getenv}, os.Args[1:], func(err error) {
		fmt.Fprintln(os.Stderr, "slipway:", err)
	}))
}
