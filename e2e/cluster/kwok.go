package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed stages.yaml
var stages string

// kwokNodeAnnotation marks the nodes that kwok plays.
const kwokNodeAnnotation = "kwok.x-k8s.io/node"

// startKwok starts kwok and registers that many nodes.
func (c *Cluster) startKwok(ctx context.Context, nodes int) error {
	config := stages
	if c.registry != nil {
		config = strings.ReplaceAll(config, "#images ", "")
	}
	path := filepath.Join(c.dir, "kwok.yaml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return fmt.Errorf("kwok: %w", err)
	}
	args := []string{
		"--kubeconfig=" + c.plane.ca.path("kwok.kubeconfig"),
		"--config=" + path,
		"--manage-all-nodes=false",
		"--manage-nodes-with-annotation-selector=" + kwokNodeAnnotation + "=fake",
		"--node-ip=127.0.0.1",
		"--cidr=10.89.0.1/16",
		"--node-lease-duration-seconds=40",
	}
	if err := c.startRole(ctx, roleKwok, args); err != nil {
		return err
	}
	for i := range nodes {
		name := fmt.Sprintf("fake-%d", i)
		_, err := c.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{kwokNodeAnnotation: "fake"},
			Labels:      map[string]string{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
		}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	if c.registry != nil {
		c.startPuller()
	}
	return c.await(ctx, "simulated nodes", c.nodesReady(nodes))
}
