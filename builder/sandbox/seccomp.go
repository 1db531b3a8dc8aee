package sandbox

import (
	"strings"
	"syscall"
)

type ociSeccomp struct {
	DefaultAction   string       `json:"defaultAction"`
	DefaultErrnoRet uint         `json:"defaultErrnoRet"`
	Syscalls        []ociSyscall `json:"syscalls"`
}

type ociSyscall struct {
	Names    []string `json:"names"`
	Action   string   `json:"action"`
	ErrnoRet *uint    `json:"errnoRet,omitempty"`
	Args     []ociArg `json:"args,omitempty"`
}

type ociArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

const (
	allow = "SCMP_ACT_ALLOW"
	deny  = "SCMP_ACT_ERRNO"
)

// allowed are the system calls that programs are built and tested with. A call that is in no list, perhaps because the
// kernel has it since yesterday, looks like one that this kernel does not have: programs then do without. Names that a
// machine does not know are passed over by runc.
const allowed = `
	accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_getres
	clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
	epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
	fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
	flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex
	futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list getcpu getcwd getdents getdents64 getegid
	geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
	getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch
	inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl
	ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link
	linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier
	memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr
	mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
	munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
	pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev
	pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg removexattr removexattrat rename renameat
	renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
	rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
	sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
	sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto
	set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid
	setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown
	sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs
	sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
	timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork
	vmsplice wait4 waitid write writev`

// forbidden are those that programs ask for by name and have to hear a clear no: they have been ways out of containers, or
// look into other processes or the kernel.
const forbidden = `
	acct add_key bpf chroot clock_adjtime clock_settime create_module delete_module fanotify_init fanotify_mark
	finit_module fsconfig fsmount fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register
	io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount
	name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_vm_readv
	process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key setdomainname sethostname setns
	settimeofday stime swapoff swapon syslog umount umount2 unshare userfaultfd vhangup`

// families are the kinds of sockets that a command may open. Others reach parts of the kernel that no build needs, and
// AF_VSOCK the machine that this one is a guest of: it knows no network namespaces.
var families = [...]uint64{syscall.AF_UNIX, syscall.AF_INET, syscall.AF_INET6, syscall.AF_NETLINK} //nolint:gochecknoglobals // a constant list

// personalities are the ways to run that undo no protection: of Linux, of 32 bits, without and with a given release, and
// the question for the present one.
var personalities = [...]uint64{0, 8, 0x20000, 0x20008, 0xffffffff} //nolint:gochecknoglobals // a constant list

// namespaceFlags are those of clone that make namespaces.
const namespaceFlags = syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC |
	syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET

// profile allows what is known to be needed. Only the machine's own way to call is let through: a program of 32 bits is killed.
func profile() *ociSeccomp {
	errno := func(e syscall.Errno) *uint { n := uint(e); return &n }
	p := &ociSeccomp{DefaultAction: deny, DefaultErrnoRet: uint(syscall.ENOSYS), Syscalls: []ociSyscall{
		{Names: strings.Fields(allowed), Action: allow},
		{Names: strings.Fields(forbidden), Action: deny, ErrnoRet: errno(syscall.EPERM)},
		{Names: []string{"clone"}, Action: allow, Args: []ociArg{{Value: namespaceFlags, Op: "SCMP_CMP_MASKED_EQ"}}},
		// Its flags are in memory, where a filter cannot look; who hears that it is not there takes clone.
		{Names: []string{"clone3"}, Action: deny, ErrnoRet: errno(syscall.ENOSYS)},
	}}
	for _, family := range families {
		p.Syscalls = append(p.Syscalls, ociSyscall{Names: []string{"socket"}, Action: allow, Args: []ociArg{{Value: family, Op: "SCMP_CMP_EQ"}}})
	}
	for _, personality := range personalities {
		p.Syscalls = append(p.Syscalls, ociSyscall{Names: []string{"personality"}, Action: allow, Args: []ociArg{{Value: personality, Op: "SCMP_CMP_EQ"}}})
	}
	return p
}
