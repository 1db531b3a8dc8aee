//go:build failpoints

package wire

import (
	"os"
	"syscall"
	"time"
)

// failpoint kills this process, as if by kill -9, at the point that SLIPWAY_FAILPOINT names.
func failpoint(name string) {
	if os.Getenv("SLIPWAY_FAILPOINT") == name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // not a step further until the signal arrives
	}
}

// machineClock goes wrong by SLIPWAY_CLOCK, a duration.
func machineClock() func() time.Time {
	wrong, _ := time.ParseDuration(os.Getenv("SLIPWAY_CLOCK")) // none is right
	return func() time.Time { return time.Now().Add(wrong) }
}
