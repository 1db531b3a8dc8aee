package prom_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/slipway-cd/slipway/e2e/prometheus"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/rollout/prom"
	"github.com/slipway-cd/slipway/rollout/web"
)

// pair makes a certificate that is its own authority, for the server and for the client.
func pair(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"metrics.example"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// A real server that wants TLS, a client certificate and a password.
func TestRealServerWithCredentials(t *testing.T) {
	certificate, key := pair(t)
	dir := t.TempDir()
	for name, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("tell-nobody"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	client, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(certificate)
	ready := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{client}}}}
	config := "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: tls.crt, client_auth_type: RequireAndVerifyClientCert}\n" +
		fmt.Sprintf("basic_auth_users: {robin: %q}\n", hash)
	server, err := prometheus.Start(t.Context(), prometheus.Options{Dir: dir, Web: config, Ready: ready, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	whole := web.Access{CA: certificate, Certificate: certificate, Key: policy.NewSecret(string(key)), User: "robin", Password: policy.NewSecret("tell-nobody")}
	for name, c := range map[string]struct {
		change func(*web.Access)
		want   string // of the error, empty for none
	}{
		"all that is asked for": {func(*web.Access) {}, ""},
		"by the server's name":  {func(a *web.Access) { a.ServerName = "metrics.example" }, ""},
		"another server's name": {func(a *web.Access) { a.ServerName = "other.example" }, "other.example"},
		"no trust":              {func(a *web.Access) { a.CA = nil }, "certificate"},
		// A server says so after the handshake, and how much of that arrives is a matter of luck.
		"no client certificate": {func(a *web.Access) { a.Certificate, a.Key = nil, policy.Secret{} }, "prometheus https://"},
		"no password":           {func(a *web.Access) { a.User, a.Password = "", policy.Secret{} }, "401"},
		"wrong password":        {func(a *web.Access) { a.Password = policy.NewSecret("tell-nobody-else") }, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			access := whole
			c.change(&access)
			s := source(t, prom.Options{URL: "https://" + server.Address, Transport: transport(t, access)})
			got, err := s.Values(t.Context(), "vector(3)", time.Now())
			switch {
			case c.want == "" && (err != nil || len(got) != 1 || got[0] != 3):
				t.Errorf("%v, %v", got, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "tell-nobody")):
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// A proxy in front of a server sees the token and the headers; Prometheus itself knows neither.
func TestTokenAndHeaders(t *testing.T) {
	seen := make(chan http.Header, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Clone()
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"3"]}]}}`)
	}))
	defer proxy.Close()
	s := source(t, prom.Options{URL: proxy.URL, Transport: transport(t, web.Access{
		Bearer: policy.NewSecret("token"), Headers: map[string]policy.Secret{"X-Scope-OrgID": policy.NewSecret("fleet")},
	})})
	if got, err := s.Values(t.Context(), "up", time.Now()); err != nil || len(got) != 1 || got[0] != 3 {
		t.Errorf("%v, %v", got, err)
	}
	if h := <-seen; h.Get("Authorization") != "Bearer token" || h.Get("X-Scope-OrgID") != "fleet" {
		t.Errorf("%v", h)
	}
}

func transport(t *testing.T, access web.Access) http.RoundTripper {
	t.Helper()
	client, err := access.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client.Transport()
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for want, address := range map[string]string{
		"cannot be read":             "http://robin:tell-nobody@[::1",
		"not an http or https URL":   "localhost:9090",
		"do not belong into the URL": "http://robin:tell-nobody@localhost:9090",
	} {
		if _, err := prom.New(prom.Options{URL: address}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "tell-nobody") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
