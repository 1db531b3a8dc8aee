package wire

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler"
)

// The host's API is asked with what the source has for Git: its login, and the CA that is trusted.
func TestPullRequestsOfAHost(t *testing.T) {
	t.Parallel()
	code := http.StatusOK
	host := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "token s3cret" || r.URL.Path != "/git/api/v1/repos/port/shop/pulls" {
			http.Error(w, r.URL.Path, http.StatusTeapot)
			return
		}
		w.Header().Set("Retry-After", "120")
		w.Header().Set("X-Total-Count", "0")
		w.WriteHeader(code)
		_, _ = w.Write([]byte("[]"))
	}))
	defer host.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw})
	at := reconciler.Hosted{
		Host: v1alpha1.HostGitea, URL: host.URL + "/git/port/shop.git",
		Credentials: reconciler.Credentials{Username: "reader", Password: policy.NewSecret("s3cret"), CA: ca},
	}
	var pulls pullRequests
	ask := func() error {
		_, err := pulls.AllOpen(t.Context(), at, "main")
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the token is told: %v", err)
		}
		return err
	}
	if err := ask(); err != nil {
		t.Error(err)
	}
	code = http.StatusTooManyRequests
	var busy *gitsource.BusyError
	if err := ask(); !errors.As(err, &busy) || busy.After != 2*time.Minute {
		t.Errorf("429: %v", err)
	}
	code = http.StatusBadGateway
	if err := ask(); !errors.Is(err, gitsource.ErrUnreachable) || errors.As(err, new(*gitsource.BusyError)) {
		t.Errorf("502: %v", err)
	}
	code = http.StatusForbidden
	if err := ask(); err == nil || errors.Is(err, gitsource.ErrUnreachable) || !strings.Contains(err.Error(), "HTTP 403") {
		t.Errorf("403: %v", err)
	}
	at.Credentials = reconciler.Credentials{BearerToken: policy.NewSecret("s3cret"), CA: ca}
	code = http.StatusOK
	if err := ask(); err != nil {
		t.Errorf("a bearer token: %v", err)
	}
	for name, c := range map[string]struct {
		at   reconciler.Hosted
		want string
	}{
		"ssh":          {reconciler.Hosted{Host: v1alpha1.HostGitea, URL: "ssh://git@git.example/port/shop.git"}, "want https://HOST/OWNER/NAME.git"},
		"another host": {reconciler.Hosted{Host: "github", URL: at.URL}, "gitea alone"},
		"an app":       {reconciler.Hosted{Host: v1alpha1.HostGitea, URL: at.URL, Credentials: reconciler.Credentials{App: &reconciler.GitHubApp{}}}, "GitHub App"},
		"no CA":        {reconciler.Hosted{Host: v1alpha1.HostGitea, URL: at.URL}, "certificate"},
	} {
		if _, err := pulls.AllOpen(t.Context(), c.at, "main"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
