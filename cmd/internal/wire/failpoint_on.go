//go:build failpoints

package wire

import (
	"os"
	"syscall"
)

// failpoint kills this process, as if by kill -9, at the point that SLIPWAY_FAILPOINT names.
func failpoint(name string) {
	if os.Getenv("SLIPWAY_FAILPOINT") == name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // not a step further until the signal arrives
	}
}
