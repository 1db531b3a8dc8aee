package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// CertificateFiles serves the certificate of two PEM files. They are read for
// each connection, so that a renewed one needs no restart; while they cannot be
// read, the last good one is used.
func CertificateFiles(certFile, keyFile string) (*tls.Config, error) {
	first, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	var mu sync.Mutex
	last := &first
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if now, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil {
				last = &now
			}
			return last, nil
		},
	}, nil
}

const (
	authorityKeyFile = "ca-key.pem"
	authorityFile    = "ca.crt"
	authorityYears   = 10
)

// SelfSigned serves certificates for names and addresses, made at each start by
// an authority of this server's own. The authority is made once, below dir;
// agents trust the file whose path is returned.
func SelfSigned(dir string, names []string) (config *tls.Config, trust string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("self-signed certificate: %w", err)
	}
	pair, err := authority(dir)
	if err != nil {
		return nil, "", fmt.Errorf("self-signed certificate in %s: %w", dir, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	template := certificateFor("slipway-server", pair.Leaf.NotAfter)
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, pair.Leaf, key.Public(), pair.PrivateKey)
	if err != nil {
		return nil, "", fmt.Errorf("self-signed certificate: %w", err)
	}
	leaf := tls.Certificate{Certificate: [][]byte{raw, pair.Certificate[0]}, PrivateKey: key}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{leaf}}, filepath.Join(dir, authorityFile), nil
}

// authority reads or makes the authority of dir. Key and certificate stand in
// one file, so that a process killed at any moment leaves both or none.
func authority(dir string) (tls.Certificate, error) {
	path := filepath.Join(dir, authorityKeyFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if content, err = newAuthority(); err == nil {
			err = writeWhole(path, content, 0o600)
		}
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(content, content)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w (remove it to get a new authority; agents must then trust that one)", path, err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return pair, writeWhole(filepath.Join(dir, authorityFile), public, 0o644)
}

func newAuthority() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateFor("slipway-server authority", time.Now().AddDate(authorityYears, 0, 0))
	template.KeyUsage, template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = x509.KeyUsageCertSign, true, true, true
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...), nil
}

// certificateFor is valid from an hour ago, for clocks that differ.
func certificateFor(name string, until time.Time) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
	}
}

// writeWhole leaves the old content or the new one, never a part.
func writeWhole(path string, content []byte, mode fs.FileMode) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
	}
	return err
}

// Trusting returns a client that trusts the authorities of a PEM file and no others.
func Trusting(file string) (*http.Client, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("server CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("server CA %s: no certificate in it", file)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: transport}, nil
}
