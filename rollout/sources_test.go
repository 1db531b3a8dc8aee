package rollout_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/e2e/prometheus"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
	"github.com/slipway-cd/slipway/rollout/prom"
	"github.com/slipway-cd/slipway/rollout/web"
)

// servers joins adapters as the agent does.
type servers struct{ web.Asker }

func (servers) Prometheus(source v1alpha1.PrometheusSource, secret map[string][]byte) (rollout.Meter, func(), error) {
	access, err := web.AccessOf(source.ServerAccess, secret)
	if err != nil {
		return nil, nil, err
	}
	client, err := access.Client()
	if err != nil {
		return nil, nil, err
	}
	meter, err := prom.New(prom.Options{URL: source.Address, Transport: client.Transport()})
	return meter, client.Close, err
}

// oracle is a server with TLS that asks for a token, and always has one answer.
type oracle struct {
	answer atomic.Value // string; what begins with a digit is a status
	asked  atomic.Value // string: URL and body of the last request
	server *httptest.Server
}

const hiddenToken = "tell-nobody-this-token"

func newOracle(t *testing.T, answer string) *oracle {
	t.Helper()
	o := &oracle{}
	o.answer.Store(answer)
	o.asked.Store("")
	o.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, 1000)
		n, _ := r.Body.Read(body)
		o.asked.Store(r.URL.String() + " " + string(body[:n]))
		answer := o.answer.Load().(string)
		switch {
		case r.Header.Get("Authorization") != "Bearer "+hiddenToken:
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasPrefix(answer, "503"):
			http.Error(w, "the token "+r.Header.Get("Authorization")+" is fine, but", http.StatusServiceUnavailable)
		default:
			fmt.Fprint(w, answer)
		}
	}))
	t.Cleanup(o.server.Close)
	return o
}

// secret is what lets the agent in.
func (o *oracle) secret(b *bed, name string) {
	b.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.server.Certificate().Raw})
	b.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: b.namespace},
		Data:       map[string][]byte{"token": []byte(hiddenToken), "ca.crt": ca},
	})
}

// under is a bed with a strategy.
func under(t *testing.T, strategy string) *bed {
	t.Helper()
	b := newBed(t)
	b.stop()
	if err := json.Unmarshal([]byte(strategy), &b.strategy); err != nil {
		t.Fatal(err)
	}
	b.start()
	return b
}

// keepsSecrets holds that nothing which people see shows the token.
func (b *bed) keepsSecrets() {
	b.Helper()
	status, err := json.Marshal(b.rollout().Status)
	if err != nil {
		b.Fatal(err)
	}
	if text := string(status) + strings.Join(b.tellings(), "\n"); strings.Contains(text, hiddenToken) {
		b.Errorf("the token is shown: %s", text)
	}
}

// A number of a server that wants a token: no answer and no number pause, a number decides.
func TestCanaryByHTTP(t *testing.T) {
	asked := newOracle(t, "503")
	b := under(t, `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"analysis": [
		{"name": "load", "relative": {"above": "0.5"}, "interval": "1s", "count": 2, "consecutiveErrorLimit": 0, "inconclusiveLimit": 0,
		"http": {"url": "`+asked.server.URL+`/load?of={{workload}}&pods={{pods}}", "method": "POST", "body": "{\"ns\": \"{{namespace}}\"}",
		"value": "body.loads.filter(l, l.of == body.of)[0].load", "timeout": "5s", "secretRef": {"name": "door"}}}]}]}}`)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	pausedFor := func(words ...string) {
		t.Helper()
		b.eventually(fmt.Sprintf("it pauses for %q", words), func() bool {
			web := b.rollout()
			verdict := web.Status.Verdict
			if web.Status.Phase != v1alpha1.PhasePaused || verdict.Outcome != v1alpha1.VerdictInconclusive {
				return false
			}
			for _, word := range words {
				if !strings.Contains(verdict.Message, word) {
					return false
				}
			}
			return true
		})
		b.keepsSecrets()
	}
	pausedFor("secret "+b.namespace+"/door is missing", "create it")
	asked.secret(b, "door")
	b.approve(1, v2)
	pausedFor(asked.server.URL+"/load", "it answers HTTP 503")
	for _, answer := range []string{`{"loads": []}`, `no JSON: ` + hiddenToken, `{"of": "x", "loads": [{"of": "x", "load": "5"}]}`} {
		asked.answer.Store(answer)
		b.approve(1, v2)
		pausedFor("the answer")
	}
	if got := b.sizes(); got != "2 of 2, 2" {
		t.Errorf("%s pods: nothing is known, and nothing moves", got)
	}
	asked.answer.Store(`{"of": "x", "loads": [{"of": "x", "load": 5}]}`) // the same for both: equal
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.keepsSecrets()
	if got := asked.asked.Load().(string); !strings.Contains(got, "/load?of=web&pods=web-%5Ba-z0-9%5D%2B-%5Ba-z0-9%5D%2B {\"ns\": \""+b.namespace+"\"}") {
		t.Errorf("asked %s", got)
	}
	b.isQuiet()
}

func TestCanaryFailsByHTTP(t *testing.T) {
	asked := newOracle(t, `{"load": 9}`)
	b := under(t, `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"analysis": [
		{"name": "load", "range": {"max": 5}, "interval": "1s", "http": {"url": "`+asked.server.URL+`", "value": "body.load", "secretRef": {"name": "door"}}}]}]}}`)
	asked.secret(b, "door")
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	web := b.reaches(v1alpha1.PhaseFailed, v2)
	if verdict := web.Status.Verdict; verdict.Outcome != v1alpha1.VerdictFail || verdict.Reason != "MetricOutOfRange" {
		t.Errorf("verdict %+v", verdict)
	}
	b.keepsSecrets()
}

// Another Prometheus than the agent's, which has none: a real one that wants a password.
func TestCanaryByAnotherPrometheus(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte(hiddenToken), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	lent := newOracle(t, "").server // its certificate will do
	key, err := x509.MarshalPKCS8PrivateKey(lent.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir, ca := t.TempDir(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: lent.Certificate().Raw})
	for name, content := range map[string][]byte{"tls.crt": ca, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server, err := prometheus.Start(t.Context(), prometheus.Options{
		Dir: dir, Ready: &http.Client{Transport: knocking{lent.Client().Transport}}, Log: t.Output(),
		Web: fmt.Sprintf("tls_server_config: {cert_file: tls.crt, key_file: tls.key}\nbasic_auth_users: {robin: %q}\n", hash),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	b := under(t, `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"analysis": [
		{"name": "load", "range": {"query": "vector(3)", "max": 5}, "interval": "1s", "count": 2, "consecutiveErrorLimit": 0,
		"prometheus": {"address": "https://`+server.Address+`", "secretRef": {"name": "door"}}}]}]}}`)
	door := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "door", Namespace: b.namespace},
		Data:       map[string][]byte{"username": []byte("robin"), "password": []byte("wrong-" + hiddenToken), "ca.crt": ca},
	}
	b.create(door)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	web := b.reaches(v1alpha1.PhasePaused, v2)
	if verdict := web.Status.Verdict; verdict.Reason != "MetricsUnavailable" || !strings.Contains(verdict.Message, "401") {
		t.Errorf("verdict %+v", verdict)
	}
	b.keepsSecrets()
	door.Data["password"] = []byte(hiddenToken)
	if err := b.client.Update(b.ctx, door); err != nil {
		t.Fatal(err)
	}
	b.reaches(v1alpha1.PhaseHealthy, v2) // it goes on by itself, with the Secret as it is now
	b.keepsSecrets()
}

// knocking asks with the password.
type knocking struct{ next http.RoundTripper }

func (k knocking) RoundTrip(request *http.Request) (*http.Response, error) {
	r := request.Clone(request.Context())
	r.SetBasicAuth("robin", hiddenToken)
	return k.next.RoundTrip(r)
}

// What is measured is part of the strategy: who corrects a query has answered what the Rollout waited for.
func TestAnotherQueryStartsOver(t *testing.T) {
	b, _ := measured(t, "", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"analysis": [`+failsAbove5+`]}]}}`)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.reaches(v1alpha1.PhasePaused, v2)
	asked := newOracle(t, `{"load": 3}`)
	asked.secret(b, "door")
	changed := strings.Replace(failsAbove5, `"range": {"query": "load{pod=~\"{{canary}}\"}[{{interval}}]", "max": 5}`,
		`"range": {"max": 5}, "http": {"url": "`+asked.server.URL+`", "value": "body.load", "secretRef": {"name": "door"}}`, 1)
	if err := json.Unmarshal([]byte(`{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"analysis": [`+changed+`]}]}}`), &b.strategy); err != nil {
		t.Fatal(err)
	}
	b.applyRollout(minute, &v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	if !b.wasTold("RolloutRestarted", "the strategy has changed") {
		t.Error("nobody was told that it started over")
	}
}
