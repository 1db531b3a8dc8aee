//go:build !failpoints

package wire

import "time"

// failpoint does nothing in a shipped binary.
func failpoint(string) {}

// machineClock is this machine's.
func machineClock() func() time.Time { return time.Now }
