package sources

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// crowd: fifty repositories of one host hang or are broken. Those of another host do not notice, and a good one of
// the same host goes on.
func (b *bed) crowd() {
	done := make(chan struct{})
	backend := b.backend()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/hangs-"):
			select {
			case <-done:
			case <-r.Context().Done():
			}
		case strings.HasPrefix(r.URL.Path, "/broken-"):
			w.WriteHeader(http.StatusInternalServerError)
		default:
			backend.ServeHTTP(w, r)
		}
	}))
	b.Cleanup(func() {
		close(done)
		server.Close()
	})
	var bad []*v1alpha1.GitSource
	for i := range 25 {
		for _, kind := range []string{"hangs", "broken"} {
			name := fmt.Sprintf("%s-%d", kind, i)
			bad = append(bad, b.source(name, v1alpha1.GitSourceSpec{URL: server.URL + "/" + name + ".git"}))
		}
	}
	for _, src := range bad {
		b.must(b.kube.Create(b.Context(), src))
	}
	b.Cleanup(func() {
		for _, src := range bad {
			b.must(client.IgnoreNotFound(b.kube.Delete(context.Background(), src)))
		}
	})
	elsewhere, here := b.repository("elsewhere"), b.repository("here")
	one, two := elsewhere.push(configMap("1")), here.push(configMap("1"))
	start := time.Now()
	b.must(b.kube.Create(b.Context(), b.source("elsewhere", v1alpha1.GitSourceSpec{URL: elsewhere.url})))
	b.at("elsewhere", "refs/heads/main@sha1:"+one)
	if took := time.Since(start); took > 15*time.Second {
		b.Errorf("the repository of another host was followed after %s", took)
	}
	start = time.Now()
	b.must(b.kube.Create(b.Context(), b.source("here", v1alpha1.GitSourceSpec{URL: server.URL + "/here.git"})))
	b.at("here", "refs/heads/main@sha1:"+two)
	b.Logf("beside fifty of which nothing was known, the first time took %.1f s", time.Since(start).Seconds())
	b.must(world.Eventually(b.Context(), 2*atMost, func() error {
		for _, src := range bad {
			var live v1alpha1.GitSource
			if err := b.kube.Get(b.Context(), client.ObjectKeyFromObject(src), &live); err != nil {
				return err
			}
			if len(live.Status.Conditions) == 0 {
				return fmt.Errorf("%s was not looked at yet", src.Name)
			}
		}
		return nil
	}))
	two = here.push(configMap("2"))
	start = time.Now()
	b.look("here")
	b.at("here", "refs/heads/main@sha1:"+two)
	if took := time.Since(start); took > 5*time.Second {
		b.Errorf("a commit of the good one was followed after %s", took)
	}
	b.refused("hangs-3", v1alpha1.ReasonSourceUnreachable, "cannot be reached")
	b.refused("broken-3", v1alpha1.ReasonSourceUnreachable, "cannot be reached")
}
