package world

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"
)

// Runner is testing.M.
type Runner interface{ Run() int }

// RunTests runs the tests of a package in one World, which has what agents need and a namespace called shared; prepare does the
// rest. The folder of the World stays where a test has failed. It returns the code to exit with.
func RunTests(tests Runner, name string, limit time.Duration, o Options, prepare func(ctx context.Context, w *World) error) int {
	code, err := runTests(tests, name, limit, o, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func runTests(tests Runner, name string, limit time.Duration, o Options, prepare func(ctx context.Context, w *World) error) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if o.Dir, err = os.MkdirTemp("", "slipway-"+name+"-"); err != nil {
		return 1, err
	}
	var log bytes.Buffer
	o.Log = &log
	w, err := Start(ctx, o)
	if err != nil {
		return 1, fmt.Errorf("%s\n%w", log.String(), err)
	}
	defer func() {
		_ = w.Stop()
		if code == 0 {
			_ = os.RemoveAll(o.Dir)
		}
	}()
	if _, err := w.Commit(ctx, "Start", Write("clusters/demo/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shared}\n")); err != nil {
		return 1, err
	}
	if err := w.Install(ctx); err != nil {
		return 1, err
	}
	if err := prepare(ctx, w); err != nil {
		return 1, err
	}
	return tests.Run(), nil
}
