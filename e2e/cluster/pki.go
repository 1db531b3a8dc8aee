package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// certificateLifetime is long enough for any test and short enough that a forgotten kubeconfig is worth nothing.
const certificateLifetime = 30 * 24 * time.Hour

// authority is the throw-away certificate authority of one cluster. It lives in memory and, because the API server and the
// controller manager read files, in dir.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  func() time.Time
}

// newAuthority writes ca.crt, ca.key, and the service account key pair sa.key, sa.pub into dir.
func newAuthority(dir string, now func() time.Time) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	a := &authority{dir: dir, now: now}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	template, err := a.template("testbed-ca", nil)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	a.key = key
	if a.pem, _, err = a.write("ca", der, key); err != nil {
		return nil, err
	}
	return a, a.serviceAccountKeys()
}

// path returns the full path of a file of the authority.
func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// serve issues a server certificate as NAME.crt and NAME.key; hosts are IP addresses or DNS names.
func (a *authority) serve(name, commonName string, groups []string, hosts ...string) error {
	template, err := a.template(commonName, groups)
	if err != nil {
		return err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	_, _, err = a.issue(name, template)
	return err
}

// client issues a client certificate as NAME.crt and NAME.key and returns both as PEM.
func (a *authority) client(name, commonName string, groups ...string) (cert, key []byte, err error) {
	template, err := a.template(commonName, groups)
	if err != nil {
		return nil, nil, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(name, template)
}

// kubeconfig issues a client certificate and writes a kubeconfig that uses it against server to path.
func (a *authority) kubeconfig(path, server, commonName string, groups ...string) error {
	base := filepath.Base(path)
	cert, key, err := a.client(base, commonName, groups...)
	if err != nil {
		return err
	}
	c := clientcmdapi.NewConfig()
	c.Clusters["testbed"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: a.pem}
	c.AuthInfos[commonName] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts["testbed"] = &clientcmdapi.Context{Cluster: "testbed", AuthInfo: commonName}
	c.CurrentContext = "testbed"
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		return fmt.Errorf("kubeconfig of %s: %w", commonName, err)
	}
	return nil
}

func (a *authority) template(commonName string, groups []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", commonName, err)
	}
	start := a.now().Add(-time.Hour) // clocks of machines that share a folder differ
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName, Organization: groups},
		NotBefore:    start,
		NotAfter:     start.Add(certificateLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, nil
}

func (a *authority) issue(name string, template *x509.Certificate) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	return a.write(name, der, k)
}

func (a *authority) write(name string, der []byte, key *ecdsa.PrivateKey) (certPEM, keyPEM []byte, err error) {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("key %s: %w", name, err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := os.WriteFile(a.path(name+".crt"), certPEM, 0o600); err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := os.WriteFile(a.path(name+".key"), keyPEM, 0o600); err != nil {
		return nil, nil, fmt.Errorf("key %s: %w", name, err)
	}
	return certPEM, keyPEM, nil
}

func (a *authority) serviceAccountKeys() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	private, err := x509.MarshalECPrivateKey(key) // SEC 1: the form that every Kubernetes version reads for signing keys
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	if err := os.WriteFile(a.path("sa.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	if err := os.WriteFile(a.path("sa.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600); err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	return nil
}
