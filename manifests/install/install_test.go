package install_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/install"
)

var update = flag.Bool("update", false, "write the golden files anew")

const agentImage = "registry.example/slipway-agent@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestManifests(t *testing.T) {
	t.Parallel()
	crds, err := install.CRDs()
	if err != nil || len(crds) != 9 {
		t.Fatalf("%d definitions, %v", len(crds), err)
	}
	for name, o := range map[string]install.Options{
		"outside": {Cluster: "demo", URL: "http://127.0.0.1:4780/environments.git", AgentUser: "slipway-agent"},
		"inside":  {Cluster: "production-eu", URL: "https://git.example/fleet.git", SecretName: "fleet", AgentImage: agentImage},
		"server": {
			Cluster: "production-eu", URL: "https://git.example/fleet.git", Branch: "live", Path: "fleet/eu", Namespace: "delivery",
			AgentImage: agentImage, Server: "https://slipway.example", Replicas: 1, Prometheus: "http://prometheus.monitoring:9090",
		},
	} {
		objects, err := install.Manifests(o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, crd := range crds {
			if got, want := manifests.RefOf(objects[i]), manifests.RefOf(crd); got != want {
				t.Errorf("%s: object %d is %s, want %s", name, i, got, want)
			}
		}
		got, err := install.YAML(objects[len(crds):])
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".yaml")
		if *update {
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s (go test ./manifests/install -update, and read the diff):\n%s", name, got)
		}
	}
}

// YAML takes some names for numbers or booleans.
func TestNamesStayStrings(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"no", "on", "123", "1e3", "null", "0x10"} {
		objects, err := install.Manifests(install.Options{Cluster: name, Namespace: name, SecretName: name, URL: "https://git.example/fleet.git"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		root := objects[len(objects)-1]
		if root.GetKind() != "Application" || root.GetName() != name || root.GetNamespace() != name {
			t.Errorf("%s: the last object is %s", name, manifests.RefOf(root))
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*install.Options)
		want   string
	}{
		{func(o *install.Options) { o.Cluster = "" }, "cluster"},
		{func(o *install.Options) { o.Cluster = "Prod_EU" }, "cluster"},
		{func(o *install.Options) { o.Cluster = "../x" }, "cluster"},
		{func(o *install.Options) { o.URL = "" }, "url: want https"},
		{func(o *install.Options) { o.URL = "git@git.example:fleet.git" }, "url: want https"},
		{func(o *install.Options) { o.URL = "ssh://git.example/fleet.git" }, "url: want https"},
		{func(o *install.Options) { o.URL = "https://robin:hunter2@git.example/fleet.git" }, "Secret"},
		{func(o *install.Options) { o.URL = "https://git.example/fleet.git\nx" }, "url"},
		{func(o *install.Options) { o.Branch = "a..b" }, "branch"},
		{func(o *install.Options) { o.Branch = "-d" }, "branch"},
		{func(o *install.Options) { o.Branch = "a b" }, "branch"},
		{func(o *install.Options) { o.Path = "/clusters/x" }, "path"},
		{func(o *install.Options) { o.Path = "clusters/../../x" }, "path"},
		{func(o *install.Options) { o.Namespace = "a.b" }, "namespace"},
		{func(o *install.Options) { o.SecretName = "x\n  evil: true" }, "secret"},
		{func(o *install.Options) { o.AgentUser = "system:anonymous" }, "agent user"},
		{func(o *install.Options) { o.AgentUser = "a\nb" }, "agent user"},
		{func(o *install.Options) { o.AgentImage = "a b" }, "agent image"},
		{func(o *install.Options) { o.Replicas = -1 }, "replicas"},
		{func(o *install.Options) { o.Replicas = 6 }, "replicas"},
		{func(o *install.Options) { o.Server = "https://slipway.example" }, "agent image"},
		{func(o *install.Options) { o.AgentImage, o.Server = agentImage, "slipway.example" }, "server: want https"},
		{func(o *install.Options) { o.Prometheus = "http://prometheus:9090" }, "agent image"},
		{func(o *install.Options) { o.AgentImage, o.Prometheus = agentImage, "http://robin:hunter2@prometheus" }, "Secret"},
	} {
		o := install.Options{Cluster: "demo", URL: "https://git.example/fleet.git"}
		c.change(&o)
		_, err := install.Manifests(o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", o, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestStarterNamesTheCluster(t *testing.T) {
	t.Parallel()
	files, err := install.Starter("eu")
	if err != nil {
		t.Fatal(err)
	}
	if _, found := files["clusters/eu/namespaces.yaml"]; !found {
		t.Error("no clusters/eu/namespaces.yaml")
	}
	for name := range files {
		if strings.Contains(name, "CLUSTER") || strings.HasPrefix(name, "starter") {
			t.Errorf("%s is written", name)
		}
	}
	for _, name := range []string{"", "../x", "A", "namespaces", "hello-dev"} {
		if _, err := install.Starter(name); err == nil {
			t.Errorf("a starter for cluster %q", name)
		}
	}
}
