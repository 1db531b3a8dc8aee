package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// config is the part of an OCI runtime configuration that is used here.
// https://github.com/opencontainers/runtime-spec/blob/main/config.md
type config struct {
	Version  string     `json:"ociVersion"`
	Process  ociProcess `json:"process"`
	Root     ociRoot    `json:"root"`
	Hostname string     `json:"hostname"`
	Mounts   []ociMount `json:"mounts"`
	Linux    ociLinux   `json:"linux"`
}

type ociProcess struct {
	User            map[string]int      `json:"user"`
	Args            []string            `json:"args"`
	Env             []string            `json:"env"`
	Cwd             string              `json:"cwd"`
	NoNewPrivileges bool                `json:"noNewPrivileges"`
	Capabilities    map[string][]string `json:"capabilities"`
	Rlimits         []ociRlimit         `json:"rlimits"`
}

type ociRlimit struct {
	Type string `json:"type"`
	Hard uint64 `json:"hard"`
	Soft uint64 `json:"soft"`
}

type ociRoot struct {
	Path     string `json:"path"`
	Readonly bool   `json:"readonly"`
}

type ociMount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

type ociLinux struct {
	UIDMappings   []ociMapping   `json:"uidMappings"`
	GIDMappings   []ociMapping   `json:"gidMappings"`
	Namespaces    []ociNamespace `json:"namespaces"`
	Resources     *ociResources  `json:"resources,omitempty"`
	CgroupsPath   string         `json:"cgroupsPath,omitempty"`
	Seccomp       *ociSeccomp    `json:"seccomp,omitempty"`
	MaskedPaths   []string       `json:"maskedPaths"`
	ReadonlyPaths []string       `json:"readonlyPaths"`
}

type ociMapping struct {
	ContainerID int `json:"containerID"`
	HostID      int `json:"hostID"`
	Size        int `json:"size"`
}

type ociNamespace struct {
	Type string `json:"type"`
	Path string `json:"path,omitempty"` // of one that exists
}

type ociResources struct {
	Memory struct {
		Limit int64 `json:"limit"`
	} `json:"memory"`
	CPU *struct {
		Quota  int64  `json:"quota"`
		Period uint64 `json:"period"`
	} `json:"cpu,omitempty"`
	PIDs struct {
		Limit int64 `json:"limit"`
	} `json:"pids"`
}

// openFiles is how many files a command may hold open.
const openFiles = 65536

// cpuPeriod is the kernel's default, in microseconds.
const cpuPeriod = 100000

// config returns what runc is told about spec, whose root file system is ready at root and whose network, where it has one
// of its own, at space.
func (s *Sandbox) config(spec Spec, root string, mounts []ociMount, space string) config {
	c := config{
		Version: "1.0.2",
		Process: ociProcess{
			User: map[string]int{"uid": 0, "gid": 0}, Args: spec.Command, Env: spec.Env, Cwd: spec.Dir,
			NoNewPrivileges: true, Capabilities: map[string][]string{},
			Rlimits: s.rlimits(spec),
		},
		Root:     ociRoot{Path: root, Readonly: true},
		Hostname: "step",
		Mounts:   mounts,
		Linux: ociLinux{
			UIDMappings: []ociMapping{{HostID: s.ids.uid, Size: 1}},
			GIDMappings: []ociMapping{{HostID: s.ids.gid, Size: 1}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/kmsg", "/proc/kallsyms",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	for _, kind := range []string{"user", "pid", "mount", "ipc", "uts"} {
		c.Linux.Namespaces = append(c.Linux.Namespaces, ociNamespace{Type: kind})
	}
	if !spec.Network || space != "" {
		c.Linux.Namespaces = append(c.Linux.Namespaces, ociNamespace{Type: "network", Path: space})
	}
	if s.seccomp {
		c.Linux.Seccomp = profile()
	}
	if s.cgroups.version != 0 {
		c.Linux.CgroupsPath = s.cgroups.name(spec.ID)
		c.Linux.Resources = resources(spec)
	}
	return c
}

// rlimits are limits that need no cgroups. They never rise above those of this process, which may not be able to.
func (s *Sandbox) rlimits(spec Spec) []ociRlimit {
	limits := []ociRlimit{{Type: "RLIMIT_CORE"}}
	lower := func(kind string, resource int, limit uint64) {
		var now unix.Rlimit
		if unix.Getrlimit(resource, &now) == nil {
			limits = append(limits, ociRlimit{Type: kind, Hard: min(limit, now.Max), Soft: min(limit, now.Max)})
		}
	}
	lower("RLIMIT_NOFILE", unix.RLIMIT_NOFILE, openFiles)
	lower("RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE, 0)
	if s.cgroups.version == 0 {
		lower("RLIMIT_NPROC", unix.RLIMIT_NPROC, uint64(cmp.Or(max(spec.PIDs, 0), defaultPIDs)))
	}
	return limits
}

func resources(spec Spec) *ociResources {
	r := &ociResources{}
	r.Memory.Limit, r.PIDs.Limit = spec.Memory, spec.PIDs
	if r.Memory.Limit <= 0 {
		r.Memory.Limit = defaultMemory
	}
	if r.PIDs.Limit <= 0 {
		r.PIDs.Limit = defaultPIDs
	}
	if spec.CPUs > 0 {
		r.CPU = &struct {
			Quota  int64  `json:"quota"`
			Period uint64 `json:"period"`
		}{int64(spec.CPUs * cpuPeriod), cpuPeriod}
	}
	return r
}

// prepare makes the folder of one command and returns the root file system and what is mounted in it.
func (s *Sandbox) prepare(dir string, spec Spec) (root string, mounts []ociMount, err error) {
	mounts = []ociMount{
		{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
		{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}},
		{"/dev/pts", "devpts", "devpts", []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{"/dev/shm", "tmpfs", "shm", []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"}},
		{"/tmp", "tmpfs", "tmpfs", []string{"nosuid", "nodev", "mode=1777", "size=1g"}},
	}
	var binds []Mount
	if spec.RootFS != "" {
		root = spec.RootFS
		binds = s.names(root, spec)
	} else {
		root = filepath.Join(dir, "rootfs")
		if binds, err = machine(root, spec.Network && !s.apart); err != nil {
			return "", nil, err
		}
	}
	if spec.Workspace != "" {
		binds = append(binds, Mount{Source: spec.Workspace, Target: "/workspace", Writable: true})
		if err := s.own(spec.Workspace, true); err != nil {
			return "", nil, fmt.Errorf("workspace: %w", err)
		}
	}
	for _, m := range spec.Mounts {
		if m.Writable {
			if err := s.own(m.Source, false); err != nil {
				return "", nil, fmt.Errorf("mount: %w", err)
			}
		}
	}
	for _, m := range append(binds, spec.Mounts...) {
		options := []string{"rbind", "nosuid", "nodev", "rprivate"}
		if !m.Writable {
			options = append(options, "ro")
			if s.deep {
				options = append(options, "rro")
			}
		}
		mounts = append(mounts, ociMount{m.Target, "bind", m.Source, options})
	}
	return root, mounts, mountPoints(root, mounts)
}

// names lets a command in an image resolve names where it has the machine's network, unless the image has its own way.
func (s *Sandbox) names(root string, spec Spec) []Mount {
	const file = "/etc/resolv.conf"
	if !spec.Network || s.apart {
		return nil
	}
	if _, err := os.Stat(file); err != nil {
		return nil
	}
	if info, err := os.Lstat(filepath.Join(root, file)); err == nil && !info.Mode().IsRegular() {
		return nil
	}
	return []Mount{{Source: file, Target: file}}
}

// mountPoints makes what is mounted over, before the root belongs to somebody who may not. Links in the
// root file system, which may come from an image, cannot lead out of it.
func mountPoints(root string, mounts []ociMount) error {
	inside, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, m := range mounts {
		if strings.HasPrefix(m.Destination, "/dev/") {
			continue // in the tmpfs that is mounted at /dev
		}
		target := strings.TrimPrefix(m.Destination, "/")
		info, err := os.Stat(m.Source)
		if m.Type == "bind" && err == nil && !info.IsDir() {
			if err := inside.MkdirAll(filepath.Dir(target), 0o755); err != nil {
				return err
			}
			file, err := inside.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return err
			}
			if err := file.Close(); err != nil {
				return err
			}
			continue
		}
		if err := inside.MkdirAll(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// machine fills root with what a step sees where it names no image: the tools of this machine, and of /etc no more than
// they need. Homes, secrets, sockets and logs are not there.
func machine(root string, network bool) ([]Mount, error) {
	var binds []Mount
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		info, err := os.Lstat(name)
		if err != nil {
			continue
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			binds = append(binds, Mount{Source: name, Target: name})
			continue
		}
		target, err := os.Readlink(name)
		if err != nil {
			return nil, err
		}
		if err := os.Symlink(target, root+name); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"/etc/ssl", "/etc/pki", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"} {
		if _, err := os.Stat(name); err == nil {
			binds = append(binds, Mount{Source: name, Target: name})
		}
	}
	if goroot := goRoot(); goroot != "" && !strings.HasPrefix(goroot, "/usr/") {
		binds = append(binds, Mount{Source: goroot, Target: goroot})
	}
	files := map[string]string{
		"passwd":        "root:x:0:0:step:/workspace:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"group":         "root:x:0:\nnogroup:x:65534:\n",
		"hosts":         "127.0.0.1 localhost\n::1 localhost\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	}
	if network {
		if content, err := os.ReadFile("/etc/resolv.conf"); err == nil {
			files["resolv.conf"] = string(content)
		}
		if content, err := os.ReadFile("/etc/hosts"); err == nil {
			files["hosts"] = string(content)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return binds, nil
}

// goRoot is the folder of the Go that this machine's users have; empty for none.
func goRoot() string {
	program, err := exec.LookPath("go")
	if err != nil {
		return ""
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return ""
	}
	return filepath.Dir(filepath.Dir(program))
}

// own gives a folder to the command's user: with all that is in it, or alone where that user has filled it before.
func (s *Sandbox) own(dir string, all bool) error {
	if s.ids.uid == os.Geteuid() {
		return nil
	}
	if !all {
		return os.Lchown(dir, s.ids.uid, s.ids.gid)
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, s.ids.uid, s.ids.gid)
	})
}

func (c config) write(dir string) error {
	content, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), content, 0o600)
}

// environment adds a PATH where there is none.
func environment(env []string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		return env
	}
	path := "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if root := goRoot(); root != "" {
		path = filepath.Join(root, "bin") + ":" + path
	}
	return append(slices.Clone(env), "PATH="+path)
}
