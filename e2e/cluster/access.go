package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Kubeconfig returns the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// RESTConfig returns a copy of the administrator's client configuration, without a client-side rate limit.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.rest) }

// UserKubeconfig writes a kubeconfig for a user of that name and returns its path. The user may do nothing until RBAC
// allows it; the API server knows it by a client certificate with the name and groups.
func (c *Cluster) UserKubeconfig(name string, groups ...string) (string, error) {
	if !userRE.MatchString(name) {
		return "", fmt.Errorf("user %q: a name starts with a letter or digit and has at most 60 letters, digits and . _ : -", name)
	}
	path := filepath.Join(c.dir, "user-"+name+".kubeconfig")
	if err := c.plane.ca.kubeconfig(path, c.server, name, groups...); err != nil {
		return "", err
	}
	return path, nil
}

// AuditLog returns the path of the API server's audit log: JSON lines of audit.k8s.io/v1 Events, level Metadata, one
// per request when it has been answered. A watch is logged when it ends. Empty without Options.AuditLog.
func (c *Cluster) AuditLog() string {
	if !c.plane.audit {
		return ""
	}
	return c.plane.auditLogPath()
}

// Simulated reports whether pods are simulated, and why.
func (c *Cluster) Simulated() (simulated bool, reason string) {
	return c.node == NodeKwok, c.reason
}

// RegistryHost returns HOST:PORT under which images are pushed from here and pulled by pods: Registry.Host of
// Options.Registry. Empty without a registry.
func (c *Cluster) RegistryHost() string {
	if c.registry == nil {
		return ""
	}
	return c.registry.Host()
}

// Port returns HOST:PORT under which a port of Options.Ports is reached from here, without the API server's help. Empty
// where pods are simulated. Connections end at once while nothing listens there.
func (c *Cluster) Port(port int) string { return c.real.reached[port] }

// Dir returns the cluster's folder; logs are below it in logs/ROLE.log.
func (c *Cluster) Dir() string { return c.dir }

// Kill ends one role with SIGKILL and returns when it is gone: etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, kwok, kubelet, kube-proxy or containerd, as far as the cluster has it.
func (c *Cluster) Kill(role string) error { return c.runner.kill(role) }

// StartRole starts a killed role again with the arguments it had. It does not wait until the role works; for etcd and
// the API server, WaitReady does.
func (c *Cluster) StartRole(ctx context.Context, role string) error {
	args, ok := c.args[role]
	if !ok {
		return fmt.Errorf("cluster %s: %s: not a role of this cluster", c.name, role)
	}
	return c.runner.start(ctx, role, args...)
}

// Compact makes etcd forget all revisions but the newest, as it does by itself every five minutes: whoever watches from an
// older one is told that it is gone.
func (c *Cluster) Compact(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.plane.etcdSock)
		},
	}}
	call := func(path, body string, answer any) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://etcd/v3/kv/"+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		got, err := client.Do(request)
		if err != nil {
			return err
		}
		defer got.Body.Close()
		text, err := io.ReadAll(got.Body)
		if err != nil || got.StatusCode != http.StatusOK {
			return errors.Join(err, fmt.Errorf("%s: %s: %s", path, got.Status, text))
		}
		return json.Unmarshal(text, answer)
	}
	var newest struct{ Header struct{ Revision string } }
	if err := call("range", `{"key":"AA==","limit":1}`, &newest); err != nil {
		return fmt.Errorf("cluster %s: etcd: %w", c.name, err)
	}
	if err := call("compaction", fmt.Sprintf(`{"revision":%q,"physical":true}`, newest.Header.Revision), &struct{}{}); err != nil {
		return fmt.Errorf("cluster %s: etcd: %w", c.name, err)
	}
	return nil
}

// WaitReady waits until the API server answers.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.await(ctx, "API server", c.apiReady)
}

// accountsReady is nil once pods can be created: the controller manager has made the default service account.
func (c *Cluster) accountsReady(ctx context.Context) error {
	_, err := c.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	return err
}

// nodesReady is nil once want nodes are Ready.
func (c *Cluster) nodesReady(want int) func(context.Context) error {
	return func(ctx context.Context) error {
		list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, n := range list.Items {
			for _, cond := range n.Status.Conditions {
				if cond.Type == "Ready" && cond.Status == "True" {
					ready++
				}
			}
		}
		if ready < want {
			return fmt.Errorf("%d of %d nodes are Ready", ready, want)
		}
		return nil
	}
}
