//go:build failpoints

package wire

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// failpoint kills this process, as if by kill -9, at the points that SLIPWAY_FAILPOINT names, separated by commas. Its output
// says at which.
func failpoint(name string) {
	if slices.Contains(strings.Split(os.Getenv("SLIPWAY_FAILPOINT"), ","), name) {
		fmt.Fprintln(os.Stderr, "failpoint: "+name)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // not a step further until the signal arrives
	}
}

// machineClock goes wrong by SLIPWAY_CLOCK, a duration.
func machineClock() func() time.Time {
	wrong, _ := time.ParseDuration(os.Getenv("SLIPWAY_CLOCK")) // none is right
	return func() time.Time { return time.Now().Add(wrong) }
}
