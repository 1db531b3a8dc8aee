//go:build !failpoints

package wire

// failpoint does nothing in a shipped binary.
func failpoint(string) {}
