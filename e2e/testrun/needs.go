package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// needs checks that the machine has the programs that tests call, and says how to get those that it lacks.
func needs(ctx context.Context) error {
	compiler, err := output(ctx, "go", "env", "CC")
	if err != nil {
		return fmt.Errorf("%w (install Go 1.26: https://go.dev/dl)", err)
	}
	compiler, _, _ = strings.Cut(compiler, " ")
	var missing []error
	for _, n := range []struct{ program, why, way string }{
		{compiler, "the race detector is linked by a C compiler", "apt-get install gcc libc6-dev"},
		{"git", "tests serve and read repositories", "apt-get install git"},
		{"make", "the demo is built by it", "apt-get install make"},
	} {
		if _, err := exec.LookPath(n.program); err != nil {
			missing = append(missing, fmt.Errorf("%s is missing: %s (on Debian and Ubuntu: %s)", n.program, n.why, n.way))
		}
	}
	return errors.Join(missing...)
}
