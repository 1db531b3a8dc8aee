package operate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/gitea"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// ear is a receiver that notes what it is told.
type ear struct {
	mu    sync.Mutex
	heard []string
	fails int // answer so many times with an error first
}

func (e *ear) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fails > 0 || err != nil {
		e.fails--
		out.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	e.heard = append(e.heard, string(body))
}

// has fails unless a message with all these words has come.
func (e *ear) has(words ...string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, message := range e.heard {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(message, word) }) {
			return nil
		}
	}
	return fmt.Errorf("no message with %q among %q", words, e.heard)
}

// last fails unless the newest message has all these words.
func (e *ear) last(words ...string) error {
	e.mu.Lock()
	newest := &ear{heard: e.heard[max(0, len(e.heard)-1):]}
	e.mu.Unlock()
	return newest.has(words...)
}

func (b *bed) ear() (*ear, string) {
	e := &ear{}
	server := httptest.NewServer(e)
	b.Cleanup(server.Close)
	return e, server.URL
}

// notification makes one with its Secret.
func (b *bed) notification(name string, provider v1alpha1.NotificationProvider, secret map[string]string, change func(*v1alpha1.NotificationSpec)) {
	b.Helper()
	b.must(b.Kube.Create(b.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: name}, StringData: secret}))
	n := &v1alpha1.Notification{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: name},
		Spec:       v1alpha1.NotificationSpec{Provider: provider, SecretRef: v1alpha1.LocalRef{Name: name}},
	}
	if change != nil {
		change(&n.Spec)
	}
	b.must(b.Kube.Create(b.Context(), n))
}

// notified waits for the reason of a Notification's condition Ready.
func (b *bed) notified(name, reason string) {
	b.Helper()
	b.eventually(func() error {
		var n v1alpha1.Notification
		if err := b.Kube.Get(b.Context(), client.ObjectKey{Namespace: world.Namespace, Name: name}, &n); err != nil {
			return err
		}
		if ready := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Reason != reason {
			return fmt.Errorf("%s: %+v, want %s", name, ready, reason)
		}
		return nil
	})
}

// TestNotifications: each receiver hears of a commit that renders and of one that does not, a dead one costs nobody anything,
// and the commit on a real Gitea shows it.
func TestNotifications(t *testing.T) {
	b := newBed(t, cluster.NodeNone)
	host, err := gitea.Start(t.Context(), gitea.Options{Dir: filepath.Join(b.Dir, "gitea"), Log: t.Output()})
	b.must(err)
	t.Cleanup(host.Kill)
	robin, err := host.User(t.Context(), "robin")
	b.must(err)
	b.must(host.Org(t.Context(), "port", robin))
	repository, err := host.Repository(t.Context(), "port", "fleet", robin)
	b.must(err)
	clone, err := b.Clone(t.Context(), "fleet", repository.URL, &gogit.Auth{Username: robin.Name, Password: policy.NewSecret(robin.Token)})
	b.must(err)
	b.Follow(clone, "login")
	first, err := b.Commit(t.Context(), "Start", version(1)...)
	b.must(err)
	b.must(b.Install(t.Context()))
	b.must(b.Kube.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "login"}, StringData: map[string]string{"username": robin.Name, "password": robin.Token},
	}))
	b.often()

	slack, slackURL := b.ear()
	slack.fails = 2
	hook, hookURL := b.ear()
	alerts, alertsURL := b.ear()
	only, onlyURL := b.ear()
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	b.notification("slack", v1alpha1.NotifySlack, map[string]string{"address": slackURL}, nil)
	b.notification("hook", v1alpha1.NotifyWebhook, map[string]string{"address": hookURL, "key": "k"}, func(s *v1alpha1.NotificationSpec) {
		s.Template = "{{.Name}} is {{.Reason}}"
	})
	b.notification("alerts", v1alpha1.NotifyAlertmanager, map[string]string{"address": alertsURL}, nil)
	b.notification("other", v1alpha1.NotifySlack, map[string]string{"address": onlyURL}, func(s *v1alpha1.NotificationSpec) { s.Applications = []string{"shop"} })
	b.notification("dead", v1alpha1.NotifySlack, map[string]string{"address": dead.URL + "/TOPSECRET"}, nil)
	b.notification("statuses", v1alpha1.NotifyCommitStatus, map[string]string{"username": robin.Name, "token": robin.Token}, nil)
	b.notification("loops", v1alpha1.NotifySlack, map[string]string{"address": slackURL}, func(s *v1alpha1.NotificationSpec) {
		s.Template = "{{range 1000000000}}{{end}}"
	})
	_, err = b.StartAgent(t.Context(), world.AgentOptions{})
	b.must(err)
	b.must(b.WaitReady(t.Context(), atMost, first, world.ClusterName))
	b.notified("loops", v1alpha1.ReasonNotificationInvalid)

	bad, err := b.Commit(t.Context(), "Break it", world.Write("clusters/demo/bad.yaml", "kind: {"))
	b.must(err)
	start := time.Now()
	b.eventually(func() error { return hook.has(`"text":"demo is RenderFailed"`, `"ready":"False"`, string(bad)) })
	t.Logf("told %d ms after the commit", time.Since(start).Milliseconds())
	b.eventually(func() error { return slack.has("RenderFailed", bad.Short()) }) // after two attempts that failed
	b.eventually(func() error { return alerts.has(`"alertname":"SlipwayApplication"`, "RenderFailed") })
	b.eventually(func() error { return b.status(host, robin, repository, string(bad), "failure") })
	b.notified("dead", v1alpha1.ReasonNotificationFailing)

	_, err = b.Commit(t.Context(), "Mend it", world.Remove("clusters/demo/bad.yaml"))
	b.must(err)
	b.eventually(func() error { return hook.last(`"ready":"True"`, string(first)) }) // what was applied is right again
	good, err := b.Commit(t.Context(), "Go on", version(2)...)
	b.must(err)
	b.must(b.WaitReady(t.Context(), atMost, good, world.ClusterName))
	b.eventually(func() error { return hook.has(`"ready":"True"`, `"reason":"Succeeded"`, string(good)) })
	b.eventually(func() error { return alerts.has(`"endsAt"`, "Succeeded") })
	b.eventually(func() error { return b.status(host, robin, repository, string(good), "success") })
	if only.has() == nil {
		t.Error("told of an Application that it does not ask for")
	}
	var n v1alpha1.Notification
	b.must(b.Kube.Get(t.Context(), client.ObjectKey{Namespace: world.Namespace, Name: "dead"}, &n))
	if text, err := json.Marshal(n.Status); err != nil || strings.Contains(string(text), "TOPSECRET") {
		t.Errorf("the status shows the address: %s", text)
	}
}

// status fails unless the host shows a status of the Application at a commit.
func (b *bed) status(host *gitea.Host, as gitea.User, r gitea.Repository, commit, state string) error {
	var all []struct{ Status, Context string }
	if err := host.Call(b.Context(), as, http.MethodGet, "repos/"+r.Name+"/commits/"+commit+"/statuses", nil, &all); err != nil {
		return err
	}
	for _, s := range all {
		if s.Context == "slipway/demo/demo" && s.Status == state {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("commit %s has the statuses %+v, want %s", commit, all, state))
}
