package local

import "syscall"

// dieWithParent makes the kernel end a child whose parent was killed.
func dieWithParent(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	a.Pdeathsig = syscall.SIGTERM
	return a
}
