package operate

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestDashboardsNameRealMetrics: every metric of dashboard and alerts is in what a real agent shows.
func TestDashboardsNameRealMetrics(t *testing.T) {
	b := newBed(t, cluster.NodeNone)
	tip, err := b.Commit(t.Context(), "Start", version(1)...)
	b.must(err)
	b.must(b.Install(t.Context()))
	_, address := b.ear()
	b.notification("taken", v1alpha1.NotifySlack, map[string]string{"address": address}, nil)
	b.notification("wrong", v1alpha1.NotifySlack, map[string]string{"address": "nowhere"}, nil)
	metrics := b.address()
	_, err = b.StartAgent(t.Context(), world.AgentOptions{Args: []string{"--metrics-address", metrics, "--leader-elect"}})
	b.must(err)
	b.must(b.WaitReady(t.Context(), atMost, tip, world.ClusterName))
	_, err = b.Commit(t.Context(), "Break it", world.Write("clusters/demo/bad.yaml", "kind: {"))
	b.must(err)

	objects, err := install.Dashboards(world.Namespace)
	b.must(err)
	text, err := install.YAML(objects)
	b.must(err)
	names := regexp.MustCompile(`\b(?:slipway|gotk|controller_runtime|leader_election|workqueue|process|rest_client)_[a-z_]+`).FindAllString(string(text), -1)
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 12 {
		t.Fatalf("only %q are named", names)
	}
	b.eventually(func() error {
		answer, err := http.Get("http://" + metrics + "/metrics") //nolint:noctx,gosec // of a process of this test
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		shown, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		var missing []error
		for _, name := range names {
			if !strings.Contains(string(shown), "\n"+name+"{") && !strings.Contains(string(shown), "\n"+name+" ") {
				missing = append(missing, fmt.Errorf("%s is not shown", name))
			}
		}
		return errors.Join(missing...)
	})
}
