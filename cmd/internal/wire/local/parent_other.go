//go:build !linux

package local

import "syscall"

// dieWithParent does nothing where the kernel does not offer it: a test bed
// whose parent was killed has to be ended by hand.
func dieWithParent(a *syscall.SysProcAttr) *syscall.SysProcAttr { return a }
