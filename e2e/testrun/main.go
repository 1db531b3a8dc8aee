// Command testrun is what `make test`, `make lint`, `make verify`, `make generate`, `make tools` and `make vuln` run.
//
// It promises that people and CI run the same checks, that nothing is skipped unseen, and that what the machine lacks is
// named with the way to get it. It uses the standard library alone, so that it says something at once on cold caches.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: go run ./e2e/testrun [COMMAND], in the root of the checkout
  (nothing)  lint, verify, all tests; as root the demo as an unprivileged user too
  lint       go vet, gofumpt, staticcheck
  verify     check the generated files, go.mod and go.sum
  generate   write the generated files anew
  tools      install what the others use into the user's cache
  tool NAME  install one of them and say where, in the last line
  demo       as root: the demo as an unprivileged user, as the last part of all does it
  vuln       look up known vulnerabilities in what is called (needs the network)
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "testrun: interrupted")
		os.Exit(130)
	case errors.Is(err, errFailed): // the last line has said so
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	steps := map[string]func(context.Context) error{
		"": testAll, "lint": lint, "verify": verify, "generate": generate, "vuln": vuln, "demo": demo,
		"tools": func(ctx context.Context) error { return install(ctx, allTools()...) },
	}
	if command == "tool" && len(args) == 2 {
		name := args[1]
		steps[command], args = func(ctx context.Context) error { return where(ctx, name) }, args[:1]
	}
	step, known := steps[command]
	if !known || len(args) > 1 {
		return fmt.Errorf("unknown arguments %q\n%s", args, usage)
	}
	if _, err := os.Stat("e2e/testrun"); err != nil {
		return errors.New("not in the root of the checkout (run it through make, or there)")
	}
	return step(ctx)
}
