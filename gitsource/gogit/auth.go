package gogit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"golang.org/x/crypto/ssh"

	"github.com/slipway-cd/slipway/policy"
)

// Auth is how a Store shows who it is to its host, and how it knows the host. What does not fit the URL, or
// each other, is refused when the Store is opened.
type Auth struct {
	// Username and Password are HTTP basic authentication. Hosts that use tokens take one as the
	// password, with any or a fixed user name.
	Username string
	Password policy.Secret
	// Bearer is a token for the header Authorization; https only.
	Bearer policy.Secret
	// Tokens gives out passwords that expire, one for each request of the Store; nil for none.
	Tokens Tokens

	// Certificate and CertificateKey are those of the client, CA those that the host's certificate may come from, in
	// place of the machine's; PEM, https only.
	Certificate    []byte
	CertificateKey policy.Secret
	CA             []byte

	// Identity is the private key for ssh, PEM; IdentityPassword opens it, if it is encrypted. PublicKey, which
	// may be left out, must belong to it. KnownHosts are the keys of hosts, in the format of sshd(8); required for ssh.
	Identity         policy.Secret
	IdentityPassword policy.Secret
	PublicKey        []byte
	KnownHosts       []byte
}

// Tokens gives out passwords that are good for a while.
type Tokens interface {
	Token(ctx context.Context) (policy.Secret, error)
}

// check refuses what does not fit the protocol of the URL, or each other.
func (a *Auth) check(protocol string) error {
	ways := 0
	for _, given := range []bool{a.Username != "" || !a.Password.Empty(), !a.Bearer.Empty(), a.Tokens != nil} {
		if given {
			ways++
		}
	}
	forTLS := !a.Bearer.Empty() || len(a.Certificate) > 0 || !a.CertificateKey.Empty() || len(a.CA) > 0
	forSSH := !a.Identity.Empty() || !a.IdentityPassword.Empty() || len(a.PublicKey) > 0 || len(a.KnownHosts) > 0
	switch {
	case ways > 1:
		return errors.New("a password, a bearer token and an app's tokens exclude each other; keep one of them")
	case protocol == "ssh" && (ways > 0 || forTLS):
		return errors.New("passwords, tokens and certificates are for https; for ssh give an identity and known_hosts")
	case protocol != "ssh" && forSSH:
		return errors.New("an identity and known_hosts are for ssh; the URL begins with " + protocol)
	case protocol != "https" && forTLS:
		return errors.New("a bearer token, a client's certificate and a CA are for https; the URL begins with " + protocol)
	case protocol == "ssh" && a.Identity.Empty():
		return errors.New("ssh needs an identity, a private key that the host knows")
	case protocol == "ssh" && len(bytes.TrimSpace(a.KnownHosts)) == 0:
		return errors.New("ssh needs known_hosts, the host's public key (ssh-keyscan HOST, checked against what the host publishes): else anybody could answer in its place")
	}
	return nil
}

// tlsConfig returns the client's side of TLS.
func (a *Auth) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a == nil {
		return config, nil
	}
	if len(a.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(a.CA) {
			return nil, errors.New("the CA holds no certificate in PEM")
		}
	}
	if len(a.Certificate) > 0 || !a.CertificateKey.Empty() {
		pair, err := tls.X509KeyPair(a.Certificate, []byte(a.CertificateKey.Reveal()))
		if err != nil {
			return nil, fmt.Errorf("the client's certificate and key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// method returns what go-git puts into requests; nil for nothing.
func (a *Auth) method(ctx context.Context) (transport.AuthMethod, error) {
	switch {
	case a == nil:
		return nil, nil
	case a.Tokens != nil:
		token, err := a.Tokens.Token(ctx)
		if err != nil {
			return nil, err
		}
		return &githttp.BasicAuth{Username: "x-access-token", Password: token.Reveal()}, nil
	case !a.Bearer.Empty():
		return &githttp.TokenAuth{Token: a.Bearer.Reveal()}, nil
	case a.Username != "" || !a.Password.Empty():
		return &githttp.BasicAuth{Username: a.Username, Password: a.Password.Reveal()}, nil
	}
	return nil, nil
}

// signer reads the identity. Its errors say nothing of the key.
func (a *Auth) signer() (ssh.Signer, error) {
	key := []byte(a.Identity.Reveal())
	signer, err := ssh.ParsePrivateKey(key)
	if errors.As(err, new(*ssh.PassphraseMissingError)) {
		if a.IdentityPassword.Empty() {
			return nil, errors.New("the identity is encrypted, and no password for it is given")
		}
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(key, []byte(a.IdentityPassword.Reveal())); err != nil {
			return nil, errors.New("the identity cannot be opened with its password")
		}
	}
	if err != nil {
		return nil, errors.New("the identity is no private key for ssh; make one with ssh-keygen -t ed25519")
	}
	if len(a.PublicKey) == 0 {
		return signer, nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(a.PublicKey)
	if err != nil {
		return nil, errors.New("the identity's public key cannot be read")
	}
	if !bytes.Equal(public.Marshal(), signer.PublicKey().Marshal()) {
		return nil, fmt.Errorf("the identity is the key %s, not %s as its public key says; give both of one pair",
			ssh.FingerprintSHA256(signer.PublicKey()), ssh.FingerprintSHA256(public))
	}
	return signer, nil
}
