package apps

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/slipway-cd/slipway/e2e/world"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// node is where the pods of hooks are, by their nodeName.
const node = "quay"

// kubelet stands where a node's would: the API server asks it for logs. It runs nothing.
type kubelet struct {
	mu   sync.Mutex
	logs map[string]string // by NAMESPACE/POD
}

func startKubelet(ctx context.Context, w *world.World) (*kubelet, error) {
	pki := filepath.Join(w.Cluster.Dir(), "pki")
	certificate, err := tls.LoadX509KeyPair(filepath.Join(pki, "apiserver.crt"), filepath.Join(pki, "apiserver.key"))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	if err != nil {
		return nil, err
	}
	k := &kubelet{logs: map[string]string{}}
	go func() {
		_ = http.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}}), k) //nolint:gosec // ends with the tests
	}()
	address, err := url.Parse("https://" + listener.Addr().String())
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseInt(address.Port(), 10, 32)
	if err != nil {
		return nil, err
	}
	object, err := shared.clients.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	object.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address.Hostname()}}
	object.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	_, err = shared.clients.CoreV1().Nodes().UpdateStatus(ctx, object, metav1.UpdateOptions{})
	return k, err
}

// wrote says what a pod has written.
func (k *kubelet) wrote(pod *corev1.Pod, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.logs[pod.Namespace+"/"+pod.Name] = text
}

// ServeHTTP answers /containerLogs/NAMESPACE/POD/CONTAINER.
func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) != 5 || parts[1] != "containerLogs" {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(k.logs[parts[2]+"/"+parts[3]]))
}
