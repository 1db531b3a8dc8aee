package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cgroupMount is where every distribution has it.
const cgroupMount = "/sys/fs/cgroup"

// cgroups is the part of the cgroup tree that one cluster's pods live in: /NAME in every hierarchy of version 1, or
// once in version 2. Two kubelets must not share one.
type cgroups struct {
	root    string // as the kubelet names it: /slipway-NAME-PID
	unified bool   // version 2
}

func newCgroups(name string) (cgroups, error) {
	g := detectCgroups(fmt.Sprintf("%s%s-%d-%d", cgroupPrefix, name, os.Getpid(), time.Now().UnixNano()%1e6))
	_, err := g.dirs()
	return g, err
}

// detectCgroups tells which version the machine has.
func detectCgroups(root string) cgroups {
	_, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers"))
	return cgroups{root: root, unified: err == nil}
}

// cgroupPrefix begins the name of every group that the test bed makes, and of every one that it removes.
const cgroupPrefix = "/slipway-"

// dirs lists the folder of the cluster in each hierarchy. A root that the test bed did not name is refused: an empty one
// would stand for the groups of the whole machine.
func (g cgroups) dirs() ([]string, error) {
	if len(g.root) <= len(cgroupPrefix) || !strings.HasPrefix(g.root, cgroupPrefix) || strings.Contains(g.root[1:], "/") {
		return nil, fmt.Errorf("cgroups: root %q is not one of the test bed's", g.root)
	}
	if g.unified {
		return []string{filepath.Join(cgroupMount, g.root)}, nil
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	var dirs []string
	seen := map[string]bool{}
	for _, e := range entries {
		real, err := filepath.EvalSymlinks(filepath.Join(cgroupMount, e.Name())) // cpu and cpuacct may be one
		if err != nil || e.Name() == "unified" || seen[real] {
			continue
		}
		seen[real] = true
		if _, err := os.Stat(filepath.Join(real, "cgroup.procs")); err == nil {
			dirs = append(dirs, filepath.Join(real, g.root))
		}
	}
	if !slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(d, cgroupMount+"/memory/") }) {
		return nil, errors.New("cgroups: no memory controller at " + cgroupMount)
	}
	return dirs, nil
}

func (g cgroups) create() error {
	dirs, err := g.dirs()
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("cgroups: %w (a real node needs root and a writable %s)", err, cgroupMount)
		}
	}
	if !g.unified {
		return nil
	}
	// Version 2 hands controllers down level by level. It refuses while the parent holds processes, unless it is the root.
	available, err := os.ReadFile(filepath.Join(cgroupMount, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	var enable []string
	for controller := range strings.FieldsSeq(string(available)) {
		enable = append(enable, "+"+controller)
	}
	if err := os.WriteFile(filepath.Join(cgroupMount, "cgroup.subtree_control"), []byte(strings.Join(enable, " ")), 0o644); err != nil {
		return fmt.Errorf("cgroups: hand controllers down: %w (in a container: run it with its own cgroup namespace and an init in a child group)", err)
	}
	return nil
}

// remove deletes the cluster's groups, deepest first. The processes in them have been killed; the kernel may take a moment
// to notice.
func (g cgroups) remove() error {
	dirs, err := g.dirs()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		var errs []error
		for _, d := range dirs {
			errs = append(errs, removeTree(d))
		}
		err := errors.Join(errs...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cgroups: %w", err)
		}
	}
	return nil
}
