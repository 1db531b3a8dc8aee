package oci_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/slipway-cd/slipway/gitsource/oci"
	"github.com/slipway-cd/slipway/policy"
)

// guarded asks for a user and password, as registries do that are not open to everybody.
func guarded(username, password string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != username || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// leadTo answers a host's requests by a server of the test, and notes whom it sent a password.
type leadTo struct {
	host, to string
	foreign  atomic.Bool
}

func (l *leadTo) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != l.host {
		if r.Header.Get("Authorization") != "" {
			l.foreign.Store(true)
		}
		return http.DefaultTransport.RoundTrip(r)
	}
	if r.URL.Scheme != "https" {
		return nil, errors.New("not encrypted")
	}
	led := r.Clone(r.Context())
	led.URL.Scheme, led.URL.Host = "http", l.to
	return http.DefaultTransport.RoundTrip(led)
}

func TestPullSecrets(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	open := w.host
	w.host = newRegistry(t, nil)
	id := w.push("shop", "1", layer(flux, archive(t, file("a", "x"))))
	behind := w.host
	door := newDoor(t, behind, guarded("robot", "pass-word"))
	w.host = door
	source := oci.Source{URL: "shop", Tag: "1"}
	w.fails(source, "does not let us in")
	config := `{"auths": {"` + door + `": {"username": "robot", "password": "pass-word"}}}`
	logins, err := oci.ParseLogins([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	source.Logins = logins
	if revision, _ := w.fetched(source); revision.ID != id {
		t.Errorf("with the login it is %s, want %s", revision, id)
	}
	// A wrong one is said, and never repeated.
	source.Logins = oci.LoginOf(door, oci.Login{Username: "robot", Password: policy.NewSecret("hunter2")})
	if err := w.fails(source, "does not let us in"); strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v repeats a password", err)
	}
	// The Store's own logins count where the source has none.
	w.store, err = oci.New(oci.Options{Dir: t.TempDir(), Logins: func() (oci.Logins, error) { return logins, nil }})
	if err != nil {
		t.Fatal(err)
	}
	source.Logins = oci.Logins{}
	w.fetched(source)
	w.host = open
	w.fails(source, "not found")
}

// newDoor serves a registry once more, behind a guard.
func newDoor(t *testing.T, behind string, guard func(http.Handler) http.Handler) string {
	t.Helper()
	server := httptest.NewServer(guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		led := r.Clone(r.Context())
		led.URL.Scheme, led.URL.Host, led.RequestURI, led.Host = "http", behind, "", behind
		response, err := http.DefaultTransport.RoundTrip(led)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = response.Body.Close() }()
		for key, values := range response.Header {
			w.Header()[key] = values
		}
		w.WriteHeader(response.StatusCode)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, response.Body)
	})))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// The token of the environment reaches registries of Google, and no others.
func TestTokensOfGoogle(t *testing.T) {
	var asked, broken atomic.Int64
	broken.Store(1)
	metadata := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Metadata-Flavor") != "Google" || !strings.HasSuffix(r.URL.Path, "/token"):
			w.WriteHeader(http.StatusNotFound)
		case broken.Load() == 1:
			w.WriteHeader(http.StatusForbidden)
		default:
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"access_token": "short-lived", "expires_in": 3600, "token_type": "Bearer"}`))
		}
	})
	t.Setenv("GCE_METADATA_HOST", metadata)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	w := newWorld(t, oci.Limits{})
	id := w.push("shop", "1", layer(flux, archive(t, file("a", "x"))))
	const google = "europe-docker.pkg.dev"
	client := &leadTo{host: google, to: newDoor(t, w.host, guarded("_token", "short-lived"))}
	var err error
	if w.store, err = oci.New(oci.Options{Dir: w.dir, Transport: client}); err != nil {
		t.Fatal(err)
	}
	source := oci.Source{URL: "oci://" + google + "/shop", Tag: "1", Provider: oci.Google}
	w.fails(source, "no credentials of this environment")
	broken.Store(0) // a failure is not remembered
	for range 2 {
		if revision, _ := w.fetched(source); revision.ID != id {
			t.Errorf("%s, want %s", revision, id)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("%d tokens were asked for", asked.Load())
	}
	if client.foreign.Load() {
		t.Error("another host was sent a password")
	}
	for _, other := range []string{"registry.example", "pkg.dev.example", "evil-docker.pkg.dev.example", "gcr.io.example"} {
		if _, err := w.store.Open(oci.Source{URL: "oci://" + other + "/shop", Tag: "1", Provider: oci.Google}); err == nil || !strings.Contains(err.Error(), "no registry of the provider") {
			t.Errorf("%s would be sent a token: %v", other, err)
		}
	}
	if _, err := w.store.Open(oci.Source{URL: "oci://registry.example/shop", Tag: "1", Provider: "aws"}); err == nil {
		t.Error("an unknown provider was taken")
	}
}
