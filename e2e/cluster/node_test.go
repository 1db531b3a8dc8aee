package cluster_test

import (
	"context"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

// A real pod of an image that was pushed from here answers a client here, and another pod through its Service.
func TestRealPodAnswersHTTP(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a real node needs root and namespaces")
	}
	r := registry(t)
	c := start(t, cluster.Options{Name: "real", Node: cluster.NodeReal, Registry: r})
	api := client(t, c)
	if c.RegistryHost() != r.Host() {
		t.Errorf("RegistryHost() = %q, want %q", c.RegistryHost(), r.Host())
	}
	ref := image(t, r, "")
	begin := time.Now()
	if _, err := api.AppsV1().Deployments("default").Create(t.Context(), deployment("web", ref, 2, 60), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service, err := api.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, func() string {
		d, err := api.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if d.Status.AvailableReplicas != 2 {
			return d.Status.String()
		}
		return ""
	})
	t.Logf("two replicas available after %s", time.Since(begin).Round(10*time.Millisecond))
	answers(t, func(ctx context.Context) ([]byte, error) {
		return api.CoreV1().Services("default").ProxyGet("http", "web", "80", "/", nil).DoRaw(ctx)
	})
	// The API server goes to a pod directly; a pod that asks the Service's address goes through kube-proxy's rules.
	answers(t, func(ctx context.Context) ([]byte, error) {
		query := map[string]string{"url": "http://" + service.Spec.ClusterIP + "/"}
		return api.CoreV1().Services("default").ProxyGet("http", "web", "80", "/via", query).DoRaw(ctx)
	})
}

// answers waits until get returns the greeting of testdata/web.
func answers(t *testing.T, get func(context.Context) ([]byte, error)) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		b, err := get(t.Context())
		if err != nil {
			return err.Error()
		}
		if string(b) != "hello from a pod\n" {
			return "got " + string(b)
		}
		return ""
	})
}
