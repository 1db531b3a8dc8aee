package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroups is the hierarchy that limits are set in.
type cgroups struct {
	version int    // 1, 2, or 0 for none that can be used
	parent  string // below the root of the hierarchy
}

const cgroupRoot = "/sys/fs/cgroup"

// findCgroups looks for controllers of memory and processes: in version 2, else in version 1, which some machines
// mount beside an empty version 2.
func findCgroups() cgroups {
	c := cgroups{parent: "/slipway"}
	if content, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil && strings.Contains(string(content), "memory") {
		c.version = 2
		return c
	}
	for _, controller := range []string{"memory", "pids"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, controller, "cgroup.procs")); err != nil {
			return cgroups{}
		}
	}
	c.version = 1
	return c
}

// name is the cgroup of one command.
func (c cgroups) name(id string) string { return c.parent + "/" + strconv.Itoa(os.Getpid()) + "-" + id }

// oomKilled reports whether the kernel has killed something in the cgroup of a command for want of memory.
func (c cgroups) oomKilled(id string) bool {
	file, key := filepath.Join(cgroupRoot, c.name(id), "memory.events"), "oom_kill "
	switch c.version {
	case 0:
		return false
	case 1:
		file = filepath.Join(cgroupRoot, "memory", c.name(id), "memory.oom_control")
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(content)) {
		if count, found := strings.CutPrefix(strings.TrimSpace(line), key); found {
			return count != "0"
		}
	}
	return false
}

// remove takes away the parent of all commands' cgroups, unless another process has commands there.
func (c cgroups) remove() {
	if c.version == 0 {
		return
	}
	dirs, err := filepath.Glob(filepath.Join(cgroupRoot, "*", c.parent))
	if err != nil {
		return
	}
	for _, dir := range append(dirs, filepath.Join(cgroupRoot, c.parent)) {
		_ = os.Remove(dir) // the kernel refuses it where something runs
	}
}
