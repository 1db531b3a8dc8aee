package cluster_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

// shortDir is a folder whose path is short enough for sockets in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A logs folder that cannot be made stops every kind of node, the real one after its groups were made: what was begun is
// taken back, and the error names the cause.
func TestFailedStartLeavesNothing(t *testing.T) {
	for _, node := range []cluster.NodeKind{cluster.NodeNone, cluster.NodeReal} {
		t.Run(node.String(), func(t *testing.T) {
			dir := shortDir(t)
			if err := os.WriteFile(filepath.Join(dir, "logs"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if c, err := cluster.Start(t.Context(), cluster.Options{Name: "unstarted", Dir: dir, Node: node}); err == nil {
				t.Error("started", c.Stop())
			}
			noGroups(t, "unstarted")
		})
	}
}

func noGroups(t *testing.T, name string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/slipway-" + name + "-*", "/sys/fs/cgroup/*/slipway-" + name + "-*"} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("cgroups left: %q, %v", left, err)
		}
	}
}

// The folder of sockets is one that a real node would replace: found out late, but pods can still be simulated.
func TestNodeAutoSimulatesWhereARealNodeFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gets as far as trying a real node")
	}
	dir, err := os.MkdirTemp("/var/lib", "c")
	if err != nil {
		t.Skipf("no folder that a real node hides: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if c, err := cluster.Start(t.Context(), cluster.Options{Name: "hidden", Dir: dir, Node: cluster.NodeReal}); err == nil {
		t.Error("a real node shares a folder that it hides", c.Stop())
	}
	c := start(t, cluster.Options{Name: "hidden", Dir: dir})
	if simulated, reason := c.Simulated(); !simulated || reason == "" {
		t.Errorf("Simulated() = %v, %q", simulated, reason)
	}
	noGroups(t, "hidden")
}

// A folder is used again after its cluster was stopped, with sockets still in it: the new cluster knows nothing of the old.
func TestFolderIsUsedAgain(t *testing.T) {
	dir := shortDir(t)
	for range 2 {
		c := start(t, cluster.Options{Name: "again", Dir: dir})
		if _, err := c.Kubectl(t.Context(), "create", "configmap", "mine"); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}
