package sandbox_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/slipway-cd/slipway/builder/sandbox"
)

// attempting makes of this program one that tries system calls, inside.
const attempting = "SANDBOX_TEST_ATTEMPT"

func TestMain(m *testing.M) {
	if os.Getenv(attempting) != "" {
		attempt(os.Getenv(attempting) == "true")
		return
	}
	os.Exit(m.Run())
}

// attempts are what must be refused. Those that the kernel alone allows to users without rights need seccomp.
func attempts() []struct {
	name    string
	seccomp bool
	try     func() error
} {
	call := func(number uintptr, args ...uintptr) func() error {
		return func() error {
			args := append(slices.Clone(args), 0, 0, 0, 0, 0, 0)
			if _, _, errno := syscall.Syscall6(number, args[0], args[1], args[2], args[3], args[4], args[5]); errno != 0 {
				return errno
			}
			return nil
		}
	}
	opened := func(family int) func() error {
		return func() error { _, err := unix.Socket(family, unix.SOCK_STREAM, 0); return err }
	}
	return []struct {
		name    string
		seccomp bool
		try     func() error
	}{
		{"become another user", false, func() error { return unix.Setuid(1) }},
		{"become another group", false, func() error { return unix.Setgroups([]int{1}) }},
		{"mount a file system", false, func() error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") }},
		{"mount a folder", false, func() error { return unix.Mount("/tmp", "/usr", "", unix.MS_BIND, "") }},
		{"make a root writable", false, func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
		{"unmount", false, func() error { return unix.Unmount("/proc", unix.MNT_DETACH) }},
		{"make a device", false, func() error { return unix.Mknod("/tmp/disk", unix.S_IFBLK|0o600, 8<<8) }},
		{"read the kernel's log", false, func() error { _, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 64)); return err }},
		{"reboot", false, func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) }},
		{"set the clock", false, func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) }},
		{"name the host", false, func() error { return unix.Sethostname([]byte("owned")) }},
		{"open raw sockets", false, func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err }},
		{"change the root", false, func() error { return unix.Chroot("/tmp") }},
		{"raise limits", false, func() error {
			return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20})
		}},
		{"trace a process", true, func() error { return unix.PtraceSeize(os.Getppid()) }},
		{"be traced", true, call(unix.SYS_PTRACE, unix.PTRACE_TRACEME)},
		{"have rights in a namespace", true, func() error { runtime.LockOSThread(); return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET) }},
		{"clone into a namespace", true, func() error {
			pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.CLONE_NEWUSER|unix.SIGCHLD), 0, 0, 0, 0, 0)
			switch {
			case errno != 0:
				return errno
			case pid == 0:
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			return nil
		}},
		{"clone by other means", true, call(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&[11]uint64{unix.CLONE_NEWUSER})), 8)},
		{"talk to the hypervisor", true, opened(unix.AF_VSOCK)},
		{"use the kernel's ciphers", true, opened(unix.AF_ALG)},
		{"use io_uring", true, call(unix.SYS_IO_URING_SETUP, 0, 0)},
		{"load a program into the kernel", true, call(unix.SYS_BPF, 0, 0, 0)},
		{"see keys", true, func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err }},
		{"catch page faults", true, call(unix.SYS_USERFAULTFD, 1)},
		{"undo address randomisation", true, call(unix.SYS_PERSONALITY, 0x0040000)},
	}
}

// attempt tries what has to fail. What seccomp alone forbids is not tried without it: a program that had itself traced stops
// at its next signal, for a tracer that does not know of it.
func attempt(seccomp bool) {
	for _, a := range attempts() {
		if seccomp || !a.seccomp {
			fmt.Printf("%s: %v\n", a.name, a.try())
		}
	}
}

// TestSystemCalls lets a program try what it must not be able to do, past shells and tools.
func TestSystemCalls(t *testing.T) {
	w := newWorld(t, nil)
	seccomp := !slices.ContainsFunc(w.Tier().Missing, func(m string) bool { return strings.HasPrefix(m, "seccomp") })
	t.Logf("seccomp: %t", seccomp)
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	program, err := os.OpenFile(filepath.Join(w.workspace, "attempt"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(program, self); err != nil {
		t.Fatal(err)
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	result, out := w.sh("./attempt", func(s *sandbox.Spec) { s.Env = []string{fmt.Sprintf("%s=%t", attempting, seccomp)} })
	if result.ExitCode != 0 {
		t.Fatalf("%+v\n%s", result, out)
	}
	for _, a := range attempts() {
		if (seccomp || !a.seccomp) && (strings.Contains(out, a.name+": <nil>\n") || !strings.Contains(out, a.name+": ")) {
			t.Errorf("%s: it could", a.name)
		}
	}
	t.Log(out)
}
