package rollout_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// office is a server with TLS that webhooks call: it keeps what was sent, and answers each path with a status.
type office struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	status map[string]int
	calls  map[string][]v1alpha1.RolloutCall
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, status: map[string]int{}, calls: map[string][]v1alpha1.RolloutCall{}}
	o.server = httptest.NewTLSServer(o)
	t.Cleanup(o.server.Close)
	return o
}

func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var call v1alpha1.RolloutCall
	if err == nil {
		err = json.Unmarshal(body, &call)
	}
	if want := policy.Signature(policy.NewSecret(hiddenToken), body); err != nil || r.Method != http.MethodPost || r.Header.Get("X-Signature") != want || r.Header.Get("X-Tenant") != "fleet" {
		o.t.Errorf("%v: %s %v %s", err, r.Method, r.Header, body)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls[r.URL.Path] = append(o.calls[r.URL.Path], call)
	w.WriteHeader(o.status[r.URL.Path])
}

func (o *office) answers(path string, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status[path] = status
}

func (o *office) called(path string) []v1alpha1.RolloutCall {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.calls[path])
}

// heard is what webhooks of type Event were told, each once.
func (o *office) heard() string {
	var all []string
	for _, call := range o.called("/event") {
		said := strings.TrimSpace(call.Event.What + " " + call.Event.Reason)
		if len(all) == 0 || all[len(all)-1] != said {
			all = append(all, said)
		}
	}
	return strings.Join(all, ", ")
}

// hook is a webhook of this office.
func (o *office) hook(name, kind string) string {
	return fmt.Sprintf(`{"name": %q, "type": %q, "url": "%s/%s", "interval": "1s", "timeout": "5s", "metadata": {"team": "shop"},
		"headers": [{"name": "X-Tenant", "value": "fleet"}], "secretRef": {"name": "door"}}`, name, kind, o.server.URL, name)
}

func (o *office) secret(b *bed) {
	b.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.server.Certificate().Raw})
	b.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "door", Namespace: b.namespace},
		Data:       map[string][]byte{"key": []byte(hiddenToken), "ca.crt": ca},
	})
}

// One story: nobody confirms, then somebody does; load is asked for; a gate calls the version back; a person lets it in.
func TestWebhooksOnTheWay(t *testing.T) {
	o := newOffice(t)
	for path, status := range map[string]int{"/confirm": 403, "/load": 200, "/gate": 404, "/event": 503} {
		o.answers(path, status)
	}
	b := under(t, `{"canary": {"progressDeadline": "30s", "steps": [{"weight": 50}, {"pause": {}}], "webhooks": [`+
		strings.Join([]string{o.hook("confirm", "Confirm"), o.hook("load", "LoadTest"), o.hook("gate", "RollbackGate"), o.hook("event", "Event")}, ",")+`]}}`)
	o.secret(b)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.eventually("it says what it waits for", func() bool {
		for _, c := range b.rollout().Status.Conditions {
			if c.Type == v1alpha1.ConditionReconciling && strings.Contains(c.Message, "waits for webhook confirm: "+o.server.URL+"/confirm: it answers HTTP 403") {
				return true
			}
		}
		return false
	})
	b.eventually("it is asked again", func() bool { return len(o.called("/confirm")) > 2 })
	if web := b.rollout(); web.Status.Phase != v1alpha1.PhaseProgressing || web.Status.Course.Step != 0 || len(o.called("/load")) != 0 || len(web.Status.Outbox) == 0 {
		t.Errorf("%+v, load was asked for %d times", web.Status, len(o.called("/load")))
	}
	b.stop()
	b.start() // what nobody was told yet is not lost
	o.answers("/event", 200)
	b.eventually("the beginning is told", func() bool { return o.heard() == "Started, Passed Available, Started" })
	o.answers("/confirm", 204)
	b.waitsAt(1, v2, "2 of 2, 2")
	b.eventually("load is asked for", func() bool { return len(o.called("/load")) == 1 })
	if call := o.called("/load")[0]; call.Weight != 50 || call.Step != 1 || call.Bundle != v2.Digest || call.Revision != "commit" || call.Namespace != b.namespace ||
		call.Rollout != "web" || call.Application != "shop" || call.Webhook != "load" || call.Metadata["team"] != "shop" || call.Phase != v1alpha1.PhaseProgressing {
		t.Errorf("%+v", call)
	}

	o.answers("/gate", 200)
	web := b.reaches(v1alpha1.PhasePaused, v2)
	if v := web.Status.Verdict; v.Outcome != v1alpha1.VerdictInconclusive || v.Reason != "RollbackGate" {
		t.Errorf("verdict %+v", v)
	}
	b.alone()
	b.eventually("stable serves in full", func() bool { return b.sizes() == "4 of 4, 0" })
	o.answers("/gate", 404)
	b.steady("a gate that closes again lets nothing in", func() bool { return b.rollout().Status.Phase == v1alpha1.PhasePaused })
	b.approve(1, v2)
	b.waitsAt(1, v2, "2 of 2, 2")
	b.approve(1, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	const story = "Started, Passed Available, Started, Step, Paused RollbackGate, Resumed, Step"
	b.eventually("the end is told", func() bool {
		return strings.HasPrefix(o.heard(), story) && strings.HasSuffix(o.heard(), "Passed Available") && len(b.rollout().Status.Outbox) == 0
	})
	b.isQuiet()
	b.keepsSecrets()
}

// A gate that reverts is a Fail, also of batches, and who is only told is told of a Deployment that replaces its pods.
func TestWebhooksOfRolling(t *testing.T) {
	o := newOffice(t)
	for path, status := range map[string]int{"/confirm": 200, "/gate": 404, "/event": 200} {
		o.answers(path, status)
	}
	b := under(t, `{"rolling": {"progressDeadline": "30s", "webhooks": [`+o.hook("event", "Event")+`]}}`)
	o.secret(b)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.eventually("it is told", func() bool { return o.heard() == "Started, Passed Available" })

	gate := strings.Replace(o.hook("gate", "RollbackGate"), `"type"`, `"reverts": true, "type"`, 1)
	batches := `{"rolling": {"progressDeadline": "30s", "batches": [{"percent": 25, "pause": {}}], "webhooks": [` + o.hook("confirm", "Confirm") + `, ` + gate + `]}}`
	b.strategy = nil
	if err := json.Unmarshal([]byte(batches), &b.strategy); err != nil {
		t.Fatal(err)
	}
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.waitsAt(1, v2, "3 of 3, 1")
	o.answers("/gate", 200)
	web := b.reaches(v1alpha1.PhaseFailed, v2)
	if v := web.Status.Verdict; v.Outcome != v1alpha1.VerdictFail || v.Reason != "RollbackGate" {
		t.Errorf("verdict %+v", v)
	}
	b.alone()
}
