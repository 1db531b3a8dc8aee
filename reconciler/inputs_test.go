package reconciler

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

type countReads struct {
	next  http.RoundTripper
	reads *atomic.Int64
}

func (c countReads) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodGet && strings.HasSuffix(request.URL.Path, "/site") {
		c.reads.Add(1)
	}
	return c.next.RoundTrip(request)
}

// An input is read once for each of its versions, and whoever names it is told of the next one.
func TestInputsAreReadOncePerVersion(t *testing.T) {
	ctx := t.Context()
	var log bytes.Buffer
	server, err := cluster.Start(ctx, cluster.Options{Name: "inputs", Node: cluster.NodeNone, Log: &log})
	if err != nil {
		t.Fatalf("%s\nno API server: %v", log.String(), err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	var reads atomic.Int64
	config := server.RESTConfig()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return countReads{next, &reads} })
	direct, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	own, err := cache.New(config, cache.Options{DefaultNamespaces: map[string]cache.Config{"default": {}}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = own.Start(ctx) }()
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop"}}
	app.Spec.Substitute = &v1alpha1.SubstituteSpec{From: []v1alpha1.InputReference{{Kind: v1alpha1.InputConfigMap, Name: "site"}}}
	site := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "site"}, Data: map[string]string{"A": "1"}}
	var known inputs
	value := func() string {
		found, err := known.of(ctx, own, direct, app)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			return ""
		}
		return found[0].Data["A"].Reveal()
	}
	becomes := func(want string) {
		t.Helper()
		err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) { return value() == want, nil })
		if err != nil {
			t.Fatalf("the input is %q, want %q", value(), want)
		}
	}
	if got := value(); got != "" || reads.Load() != 0 {
		t.Fatalf("before it is there: %q, %d reads", got, reads.Load())
	}
	if err := direct.Create(ctx, site); err != nil {
		t.Fatal(err)
	}
	becomes("1")
	if value() != "1" || reads.Load() != 1 {
		t.Errorf("%d reads of one version", reads.Load())
	}
	site.Data["A"] = "2"
	if err := direct.Update(ctx, site); err != nil {
		t.Fatal(err)
	}
	becomes("2")
	if value() != "2" || reads.Load() != 2 {
		t.Errorf("%d reads of two versions", reads.Load())
	}
	key := inputKey{v1alpha1.InputConfigMap, types.NamespacedName{Namespace: "default", Name: "site"}}
	if users := fmt.Sprint(known.users(key)); users != "[default/shop]" {
		t.Errorf("users: %s", users)
	}
	app.Spec.Substitute = nil
	if value(); len(known.users(key)) != 0 || len(known.held) != 0 {
		t.Error("what nobody names any more is kept")
	}
}
