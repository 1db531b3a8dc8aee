package gogit_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/policy"
)

// certified makes a client's certificate that is its own authority.
func certified(t *testing.T) (certificate, key []byte, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "agent"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), pool
}

func TestHTTPS(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"a": "1"})
	certificate, key, pool := certified(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer right" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.server.Config.Handler.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	whole := gogit.Auth{Bearer: policy.NewSecret("right"), Certificate: certificate, CertificateKey: policy.NewSecret(string(key)), CA: ca}
	try := func(auth gogit.Auth) (gitsource.Revision, error) {
		s, err := gogit.Open(context.Background(), gogit.Options{Dir: t.TempDir(), URL: server.URL + "/repo.git", Auth: &auth})
		if err != nil {
			t.Fatal(err)
		}
		return s.Fetch(context.Background(), mainRef)
	}
	if got, err := try(whole); err != nil || got.ID != id {
		t.Errorf("got %+v, %v", got, err)
	}
	wrong := whole
	wrong.Bearer = policy.NewSecret("hidden")
	if _, err := try(wrong); err == nil || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "wants credentials") {
		t.Errorf("a wrong token: %v", err)
	}
	anonymous := whole
	anonymous.Certificate, anonymous.CertificateKey = nil, policy.Secret{}
	if _, err := try(anonymous); !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("without a certificate: %v", err)
	}
	trusting := whole
	trusting.CA = nil
	if _, err := try(trusting); !errors.Is(err, gitsource.ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a host of an unknown authority: %v", err)
	}
}

func TestAuthThatDoesNotFit(t *testing.T) {
	certificate, key, _ := certified(t)
	secret := policy.NewSecret("hidden")
	for name, c := range map[string]struct {
		url  string
		auth gogit.Auth
		want string
	}{
		"password and token":     {"https://host/x", gogit.Auth{Username: "u", Password: secret, Bearer: secret}, "exclude each other"},
		"a token over http":      {"http://host/x", gogit.Auth{Bearer: secret}, "are for https"},
		"a CA over http":         {"http://host/x", gogit.Auth{CA: certificate}, "are for https"},
		"an identity over https": {"https://host/x", gogit.Auth{Identity: secret}, "are for ssh"},
		"a CA that is none":      {"https://host/x", gogit.Auth{CA: []byte("hidden")}, "no certificate in PEM"},
		"a certificate alone":    {"https://host/x", gogit.Auth{Certificate: certificate}, "certificate and key"},
		"a key alone":            {"https://host/x", gogit.Auth{CertificateKey: policy.NewSecret(string(key))}, "certificate and key"},
	} {
		_, err := gogit.Open(context.Background(), gogit.Options{Dir: t.TempDir(), URL: c.url, Auth: &c.auth})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
