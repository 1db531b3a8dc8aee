package cluster_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

func start(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	begin := time.Now()
	c, err := cluster.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s up in %s", o.Name, time.Since(begin).Round(10*time.Millisecond))
	t.Cleanup(func() {
		begin := time.Now()
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("%s stopped in %s", o.Name, time.Since(begin).Round(10*time.Millisecond))
	})
	return c
}

func TestControlPlane(t *testing.T) {
	c := start(t, cluster.Options{Name: "plain", Node: cluster.NodeNone, AuditLog: true})
	out, err := c.Kubectl(t.Context(), "version")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	if b, err := os.ReadFile(c.AuditLog()); err != nil || len(b) == 0 {
		t.Errorf("audit log: %d bytes, %v", len(b), err)
	}
}
