package web_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/rollout/web"
)

const hidden = "tell-nobody"

func request(address string, headers ...v1alpha1.RequestHeader) v1alpha1.HTTPRequest {
	return v1alpha1.HTTPRequest{URL: address, ServerAccess: v1alpha1.ServerAccess{Headers: headers}}
}

func certificateOf(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// A server with TLS sees what it is told, and nobody is asked who has not the certificate that is expected.
func TestServerSeesTheRequest(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s tenant=%s auth=%s type=%s sign=%s", r.Method, r.URL, body,
			r.Header.Get("X-Tenant"), r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header.Get("X-Signature"))
	}))
	defer server.Close()
	ca := certificateOf(server)
	for name, c := range map[string]struct {
		method, body string
		headers      []v1alpha1.RequestHeader
		secret       map[string][]byte
		want         string
	}{
		"plain":    {secret: map[string][]byte{"ca.crt": ca}, want: "GET /q?a=b  tenant= auth= type= sign="},
		"token":    {secret: map[string][]byte{"ca.crt": ca, "token": []byte("abcd\n")}, want: "auth=Bearer abcd type"},
		"password": {secret: map[string][]byte{"ca.crt": ca, "username": []byte("robin"), "password": []byte("x")}, want: "auth=Basic cm9iaW46eA=="},
		"header": {
			headers: []v1alpha1.RequestHeader{{Name: "X-Tenant", SecretKey: "tenant"}},
			secret:  map[string][]byte{"ca.crt": ca, "tenant": []byte("fleet")}, want: "tenant=fleet",
		},
		"a key of its own": {
			headers: []v1alpha1.RequestHeader{{Name: "Authorization", Value: "ApiKey 5"}},
			secret:  map[string][]byte{"ca.crt": ca}, want: "auth=ApiKey 5",
		},
		"body": {
			method: "POST", body: `{"a": 1}`, secret: map[string][]byte{"ca.crt": ca, "key": []byte("k")},
			want: `POST /q?a=b {"a": 1} tenant= auth= type=application/json sign=` + policy.Signature(policy.NewSecret("k"), []byte(`{"a": 1}`)),
		},
		"no trust": {want: "error: " + server.URL + "/q: tls: failed to verify certificate"},
		"no header": {
			headers: []v1alpha1.RequestHeader{{Name: "X-Tenant", SecretKey: "tenant"}},
			secret:  map[string][]byte{"ca.crt": ca}, want: "error: " + server.URL + "/q: header X-Tenant: the Secret has no tenant",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(server.URL+"/q?a=b", c.headers...)
			r.Method, r.Body = c.method, c.body
			body, err := web.Asker{}.Ask(t.Context(), r, c.secret)
			got := string(body)
			if err != nil {
				got = "error: " + err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// What is no answer is an error, and none shows the Secret or what the server said.
func TestWhatIsNoAnswer(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the credentials %q went elsewhere", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	quiet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	mux := http.NewServeMux()
	for path, answer := range map[string]http.HandlerFunc{
		"/well": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "3") },
		"/echo": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.Header.Get("Authorization"), http.StatusForbidden)
		},
		"/busy": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) },
		"/near": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/well", http.StatusFound) },
		"/away": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/?"+hidden, http.StatusTemporaryRedirect)
		},
		"/loop": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) },
		"/huge": func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"/full": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1<<20)) },
		"/torn": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			fmt.Fprint(w, "3")
		},
	} {
		mux.HandleFunc(path, answer)
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	for address, want := range map[string]string{
		server.URL + "/well":                  "",
		server.URL + "/near":                  "",
		server.URL + "/full":                  "",
		server.URL + "/echo?q=" + hidden:      "/echo: it answers HTTP 403",
		server.URL + "/busy":                  "it answers HTTP 503",
		server.URL + "/away":                  "redirects to another server",
		server.URL + "/loop":                  "redirects more than 3 times",
		server.URL + "/huge":                  "more than 1 MiB",
		server.URL + "/torn":                  "unexpected EOF",
		server.URL + "/" + hidden + "x":       "/[secret]x: it answers HTTP 404",
		"http://" + quiet.Addr().String():     "no answer within 200ms",
		"http://127.0.0.1:1/":                 "connection refused",
		"http://169.254.169.254/latest":       "link-local",
		"http://robin:tell-nobody@127.0.0.1/": "credentials do not belong into the URL",
		"http://robin:tell-nobody@[::1":       "cannot be read",
		"file:///etc/passwd":                  "not an http or https URL",
		"127.0.0.1/x":                         "not an http or https URL",
	} {
		r := request(address)
		r.Timeout = metav1.Duration{Duration: 200 * time.Millisecond}
		if !strings.Contains(want, "200ms") {
			r.Timeout.Duration = 20 * time.Second // a busy machine is no outage
		}
		body, err := web.Asker{}.Ask(t.Context(), r, map[string][]byte{"token": []byte(hidden)})
		switch {
		case want == "" && (err != nil || len(body) == 0):
			t.Errorf("%s: %v", address, err)
		case want != "" && (err == nil || len(body) > 0 || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", address, err, want)
		}
		if err != nil && strings.Contains(err.Error(), hidden) {
			t.Errorf("%s: the error shows the Secret: %v", address, err)
		}
	}
}

// A server that knows its clients by certificates lets in who has one.
func TestClientCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "in") }))
	server.StartTLS()
	certificate := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	strict := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "in") }))
	strict.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	strict.StartTLS()
	defer strict.Close()
	secret := map[string][]byte{
		"ca.crt":  certificateOf(strict),
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
	if body, err := (web.Asker{}).Ask(t.Context(), request(strict.URL), secret); err != nil || string(body) != "in" {
		t.Errorf("%s, %v", body, err)
	}
	delete(secret, "tls.key")
	if _, err := (web.Asker{}).Ask(t.Context(), request(strict.URL), secret); err == nil || !strings.Contains(err.Error(), "give both or neither") {
		t.Errorf("%v", err)
	}
	delete(secret, "tls.crt")
	if _, err := (web.Asker{}).Ask(t.Context(), request(strict.URL), secret); err == nil {
		t.Error("it let in somebody without a certificate")
	}
}

func TestAccessThatMakesNoSense(t *testing.T) {
	secret := policy.NewSecret(hidden)
	for want, access := range map[string]web.Access{
		"exclude each other":           {Bearer: secret, User: "robin"},
		"password without a user":      {Password: secret},
		"give both or neither":         {Certificate: []byte("x")},
		"no certificate in it":         {CA: []byte("x")},
		"certificate and key: tls":     {Certificate: []byte("x"), Key: secret},
		"there is a bearer token or a": {Bearer: secret, Headers: map[string]policy.Secret{"authorization": secret}},
	} {
		if _, err := access.Client(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), hidden) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
