package server_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// shows asks for a path and reads the answer into what is given; it returns the status.
func (r running) shows(t *testing.T, path string, into any) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // of this test's own server
	defer client.CloseIdleConnections()
	response, err := client.Get(r.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(content, into); err != nil {
			t.Fatalf("%s: %v", content, err)
		}
	}
	return response.StatusCode
}

// What an agent reports of Rollouts is shown when the repository enrols its key, and nobody else's word is.
func TestRolloutsOfEnrolledAgents(t *testing.T) {
	w := newWorld(t)
	s := w.serve(nil)
	now := time.Now().UTC().Truncate(time.Second)
	report := v1alpha1.RolloutReport{Cluster: "eu", At: now, Rollouts: []v1alpha1.RolloutState{{
		Namespace: "shop", Name: "web", Phase: v1alpha1.PhaseProgressing, Step: 2, Steps: 3, Weight: 20,
		Metrics: []v1alpha1.MetricEvidence{{Name: "errors", Limit: v1alpha1.MetricLimit{Max: "5", Count: 3}, Said: "1"}},
		Trail:   []v1alpha1.TrailPoint{{What: "Started"}},
	}}}
	send := func(key ed25519.PrivateKey, change func(*v1alpha1.RolloutReport)) error {
		t.Helper()
		mine := report
		change(&mine)
		signed, err := undo.SignRollouts(key, mine)
		if err != nil {
			t.Fatal(err)
		}
		return s.Rollouts(t.Context(), signed)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"a stranger":        {send(stranger, func(*v1alpha1.RolloutReport) {}), "no key that is enrolled"},
		"another cluster":   {send(w.key, func(r *v1alpha1.RolloutReport) { r.Cluster = "us" }), "no key that is enrolled"},
		"no cluster's name": {send(w.key, func(r *v1alpha1.RolloutReport) { r.Cluster = "../x" }), "cluster"},
		"the future":        {send(w.key, func(r *v1alpha1.RolloutReport) { r.At = now.Add(time.Hour) }), "in the future"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: %v", name, test.err)
		}
	}
	var list console.RolloutList
	if status := s.shows(t, console.PathRollouts, &list); status != http.StatusOK || len(list.Rollouts) != 0 {
		t.Errorf("%d: %+v", status, list)
	}
	if err := send(w.key, func(*v1alpha1.RolloutReport) {}); err != nil {
		t.Fatal(err)
	}
	var one console.ReportedRollout
	if status := s.shows(t, console.PathRollouts+"/eu/shop/web", &one); status != http.StatusOK || one.Weight != 20 || one.Cluster != "eu" ||
		one.Metrics[0].Limit.Max != "5" || len(one.Trail) != 1 || one.ReceivedAt.IsZero() {
		t.Errorf("%d: %+v", status, one)
	}
	// What was true before is not true again because somebody sends it again.
	if err := send(w.key, func(r *v1alpha1.RolloutReport) { r.At, r.Rollouts = now.Add(-time.Minute), nil }); err != nil {
		t.Fatal(err)
	}
	if status := s.shows(t, console.PathRollouts, &list); status != http.StatusOK || len(list.Rollouts) != 1 {
		t.Errorf("%d: %+v", status, list)
	}
	if status := s.shows(t, console.PathRollouts+"/eu/shop/other", &one); status != http.StatusNotFound {
		t.Errorf("what nobody reported: %d", status)
	}
}
