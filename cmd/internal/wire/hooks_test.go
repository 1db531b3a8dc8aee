package wire_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestAgentHearsOfPushes: with an interval of an hour, a signed message is what brings a commit in, and nothing else does.
func TestAgentHearsOfPushes(t *testing.T) {
	w, err := world.Start(t.Context(), world.Options{Dir: t.TempDir(), Node: cluster.NodeNone, Log: t.Output()})
	must(t, err)
	defer func() { _ = w.Stop() }()
	first, err := w.Commit(t.Context(), "Start", world.Write("clusters/demo/one.yaml", inDefault("one")))
	must(t, err)
	must(t, w.Install(t.Context()))
	must(t, w.Kube.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "hook"}, StringData: map[string]string{"token": "what it is signed with"},
	}))
	source := &v1alpha1.GitSource{}
	source.Namespace, source.Name = world.Namespace, "fleet"
	must(t, w.Kube.Patch(t.Context(), source, client.RawPatch("application/merge-patch+json",
		[]byte(`{"spec":{"interval":"1h","webhook":{"kind":"generic","secretRef":{"name":"hook"}}}}`))))
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	_, err = w.StartAgent(t.Context(), world.AgentOptions{Args: []string{"--webhook-address", address}})
	must(t, err)
	must(t, w.WaitReady(t.Context(), time.Minute, first, world.ClusterName))

	second, err := w.Commit(t.Context(), "Go on", world.Write("clusters/demo/two.yaml", inDefault("two")))
	must(t, err)
	at := "http://" + address + "/v1/hooks/"
	for _, c := range []struct {
		hook, key string
		want      int
	}{{"fleet", "a guess", 401}, {"other", "what it is signed with", 404}} {
		if code := send(t, at+c.hook, c.key); code != c.want {
			t.Errorf("%s with key %q: HTTP %d, want %d", c.hook, c.key, code, c.want)
		}
	}
	if code := send(t, at+"fleet", "what it is signed with"); code != http.StatusAccepted {
		t.Fatalf("HTTP %d", code)
	}
	start := time.Now()
	must(t, world.Eventually(t.Context(), time.Minute, func() error { return seen(t, w, second) }))
	t.Logf("applied %d ms after the message", time.Since(start).Milliseconds())
}

func seen(t *testing.T, w *world.World, commit gitsource.ObjectID) error {
	if err := w.Ready(t.Context(), world.ClusterName, commit); err != nil {
		return err
	}
	return w.Kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "two"}, &corev1.ConfigMap{})
}

func inDefault(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default}\n", name)
}

func send(t *testing.T, url, key string) int {
	t.Helper()
	const body = "something moved"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	must(t, err)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	request.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()
	return answer.StatusCode
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
