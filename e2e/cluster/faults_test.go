package cluster_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func TestTwoClustersSeeNothingOfEachOther(t *testing.T) {
	node := cluster.NodeKwok
	if os.Geteuid() == 0 {
		node = cluster.NodeAuto
	}
	first := start(t, cluster.Options{Name: "first", Node: node})
	second := start(t, cluster.Options{Name: "second", Node: node})
	a, b := client(t, first), client(t, second)
	if _, err := a.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("only-first"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CoreV1().ConfigMaps("default").Get(t.Context(), "only-first", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the other cluster's object: got %v, want not found", err)
	}
	nodes, err := b.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Errorf("second cluster: %d nodes, %v; want 1", len(nodes.Items), err)
	}
	foreign := second.RESTConfig()
	foreign.Host = first.RESTConfig().Host
	stranger, err := kubernetes.NewForConfig(foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("the second cluster's administrator may look into the first")
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("still-here"), metav1.CreateOptions{}); err != nil {
		t.Errorf("after the first was stopped: %v", err)
	}
}

func testKill(t *testing.T, c *cluster.Cluster) {
	api := client(t, c)
	if _, err := api.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("kept"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		if err := c.Kill(role); err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(role); err == nil {
			t.Errorf("%s: killed twice without an error", role)
		}
		if err := c.StartRole(t.Context(), role); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if err := c.StartRole(t.Context(), "kubelet"); err == nil {
		t.Error("started a role that the cluster does not have")
	}
}

func testUser(t *testing.T, c *cluster.Cluster) {
	path, err := c.UserKubeconfig("agent", "slipway:agents")
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	user, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list := func() error {
		_, err := user.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		return err
	}
	if err := list(); !apierrors.IsForbidden(err) {
		t.Errorf("before: got %v, want forbidden", err)
	}
	if _, err := c.Kubectl(t.Context(), "create", "rolebinding", "agents", "--namespace=default", "--clusterrole=view", "--group=slipway:agents"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() string {
		if err := list(); err != nil {
			return err.Error()
		}
		return ""
	})
	if _, err := c.UserKubeconfig("../escape"); err == nil {
		t.Error("a user name that is a path was accepted")
	}
}

// Processes go at once; groups that only an owner can remove go when the next cluster starts.
func TestKilledOwnerLeavesNothing(t *testing.T) {
	dir := shortDir(t)
	program := filepath.Join(dir, "testbed")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "./testbed").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	folder := filepath.Join(dir, "data")
	cmd := exec.CommandContext(t.Context(), program, "up", "-dir", folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "export KUBECONFIG=") {
	}
	if lines.Text() == "" {
		t.Fatalf("the cluster did not come up: %v, %v", lines.Err(), cmd.Wait())
	}
	if n := len(processesOf(t, folder)); n < 4 {
		t.Errorf("%d processes of a running cluster", n)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed: always an error
	eventually(t, 10*time.Second, func() string { return strings.Join(processesOf(t, folder), "\n") })
	start(t, cluster.Options{Name: "next", Node: cluster.NodeNone}) // clears up what the dead one could not
	noGroups(t, "testbed")
}

// processesOf lists the command lines of processes that mention dir.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
				t.Log(err)
			}
			continue
		}
		if line := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(line, dir+"/") {
			found = append(found, line)
		}
	}
	return found
}
