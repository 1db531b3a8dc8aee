package cluster

import "testing"

// Removing works on whole trees, so that a root which the test bed did not name must never become a list of folders.
func TestOnlyOwnCgroupsAreListed(t *testing.T) {
	for _, root := range []string{"", "/", "/slipway-", "/system.slice", "slipway-a-1-1", "/slipway-a/../system.slice"} {
		for _, unified := range []bool{false, true} {
			if dirs, err := (cgroups{root: root, unified: unified}).dirs(); err == nil {
				t.Errorf("root %q: %q, want an error", root, dirs)
			}
		}
	}
	if dirs, err := (cgroups{root: "/slipway-a-1-1", unified: true}).dirs(); err != nil || len(dirs) != 1 || dirs[0] != "/sys/fs/cgroup/slipway-a-1-1" {
		t.Errorf("got %q, %v", dirs, err)
	}
}
