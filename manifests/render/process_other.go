//go:build !linux

package render

import "os/exec"

// Elsewhere than on Linux a child ends with its standard input, and only its
// own garbage collector knows the memory limit. Agents and servers run on Linux.

func lockThread() {}

func dieWithParent(*exec.Cmd) {}

func residentBytes(int) int64 { return 0 }
