package apps

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const phases = `  healthChecks:
    - apiVersion: v1
      kind: ConfigMap
      current: metadata.name != "settings" || metadata.annotations["phase"] == "done-" + data.value
      inProgress: metadata.name == "settings" && !("phase" in metadata.?annotations.orValue({}))
      failed: metadata.name == "settings" && self.metadata.annotations["phase"] == "broken-" + data.value
`

// phase is what a controller would write about the settings.
func (s story) phase(phase string) {
	s.Helper()
	_, err := shared.clients.CoreV1().ConfigMaps(s.name).Patch(s.Context(), "settings", types.MergePatchType,
		[]byte(fmt.Sprintf(`{"metadata":{"annotations":{"phase":%q}}}`, phase)), metav1.PatchOptions{FieldManager: "phaser"})
	s.must(err)
}

func TestHealthChecks(t *testing.T) {
	s := tell(t, "checks", "  environment: production\n"+phases)
	s.commit("First", s.set("one"))
	s.says(v1alpha1.ReasonProgressing, "ConfigMap checks/settings: spec.healthChecks: metadata.name")
	s.phase("done-one")
	s.ready()

	// What was healthy and fails later has nothing to go back to: it is told, and no commit is made.
	s.phase("broken-one")
	s.says(v1alpha1.ReasonHealthFailed, "was healthy and has failed since", "ConfigMap checks/settings")
	s.phase("done-one")
	s.ready()

	// A failure is told at once, long before the timeout of five minutes, and the version goes back.
	start := time.Now()
	s.commit("Second", s.set("two"))
	s.has("two")
	s.phase("broken-two")
	s.has("one")
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	if text := s.events(); !strings.Contains(text, "ConfigMap checks/settings: spec.healthChecks: failed") {
		t.Errorf("events:\n%s", text)
	}
	s.phase("done-one")
	s.ready()
}

// A new version ends the wait for the old one, and a condition that is none is named.
func TestHealthCheckChanges(t *testing.T) {
	s := tell(t, "recheck", phases)
	s.commit("First", s.set("one"))
	s.says(v1alpha1.ReasonProgressing, "ConfigMap recheck/settings")
	start := time.Now()
	s.commit("Second", s.set("two"), s.file("other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n"))
	s.has("two")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	s.commit("A check that is none", application(s.name, strings.Replace(phases, `== "broken-" + data.value`, "==", 1)))
	s.says(v1alpha1.ReasonInvalidExpression, "spec.healthChecks[0].failed", "Syntax error")
	if !s.stalled() {
		t.Error("not stalled")
	}
	// Without checks of its own, a ConfigMap is healthy as soon as it is there.
	s.commit("No check", application(s.name, ""))
	s.ready()
}
