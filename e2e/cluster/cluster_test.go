package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
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

// One cluster for what needs no node; the last subtest kills its roles.
func TestControlPlane(t *testing.T) {
	c := start(t, cluster.Options{Name: "plain", Node: cluster.NodeNone, AuditLog: true})
	t.Run("version", func(t *testing.T) {
		out, err := c.Kubectl(t.Context(), "version")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(out, "v1.37.2") != 2 {
			t.Errorf("kubectl version: %s; want v1.37.2 on both sides", out)
		}
	})
	t.Run("user may do nothing until allowed", func(t *testing.T) { testUser(t, c) })
	t.Run("audit log names user and verb", func(t *testing.T) { testAuditLog(t, c) })
	t.Run("killed roles come back with their data", func(t *testing.T) { testKill(t, c) })
}

// testAuditLog follows testUser: the requests of the user agent are in the log once each, at one stage.
func testAuditLog(t *testing.T, c *cluster.Cluster) {
	f, err := os.Open(c.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Stage, Verb, Level string
			User               struct{ Username string }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Stage == "RequestReceived" || e.Stage == "ResponseStarted" || e.Level != "Metadata" {
			t.Fatalf("stage %s, level %s", e.Stage, e.Level)
		}
		if e.User.Username == "agent" && e.Verb == "list" {
			seen++
		}
	}
	if err := lines.Err(); err != nil || seen < 2 {
		t.Errorf("%d lists by the user agent, %v; want at least 2", seen, err)
	}
}
