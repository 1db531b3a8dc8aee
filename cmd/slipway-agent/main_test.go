package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestKubeConfigIsOneFile: a colon in its name does not make a list of it, as in KUBECONFIG.
func TestKubeConfigIsOneFile(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	file := filepath.Join(t.TempDir(), "system:serviceaccount:slipway-system:slipway-agent.kubeconfig")
	const content = `apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://a.example"}}]
contexts: [{name: a, context: {cluster: a}}]
current-context: a
`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	kube, err := kubeConfig(file)
	if err != nil || kube.Host != "https://a.example" {
		t.Errorf("%+v, %v", kube, err)
	}
	if _, err := kubeConfig(file + ".gone"); err == nil {
		t.Error("a file that is not there")
	}
}
