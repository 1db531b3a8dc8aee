package web

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// Access is how a server is reached. The zero value asks without credentials and trusts the system's authorities.
type Access struct {
	// CA is trusted instead of the system's authorities, PEM.
	CA []byte
	// Certificate and Key identify us, PEM; both or neither.
	Certificate []byte
	Key         policy.Secret
	// ServerName is expected in the server's certificate instead of the URL's host.
	ServerName string
	// Bearer, or User with Password; not both.
	Bearer   policy.Secret
	User     string
	Password policy.Secret
	// Headers are sent with every request, a tenant's name for example.
	Headers map[string]policy.Secret
}

// Keys of a Secret by which a server lets us in.
const (
	keyToken       = "token"
	keyUser        = "username"
	keyPassword    = "password"
	keyCA          = "ca.crt"
	keyCertificate = "tls.crt"
	keyKey         = "tls.key"
	keySigning     = "key"
)

// AccessOf reads what a Rollout says of a server, and the Secret that it names, nil for none.
func AccessOf(spec v1alpha1.ServerAccess, secret map[string][]byte) (Access, error) {
	text := func(key string) string { return strings.TrimSpace(string(secret[key])) }
	a := Access{
		CA: secret[keyCA], Certificate: secret[keyCertificate], Key: policy.NewSecret(string(secret[keyKey])),
		Bearer: policy.NewSecret(text(keyToken)), User: text(keyUser), Password: policy.NewSecret(text(keyPassword)),
		Headers: map[string]policy.Secret{},
	}
	for _, header := range spec.Headers {
		value := header.Value
		if header.SecretKey != "" {
			if value = text(header.SecretKey); value == "" {
				return Access{}, fmt.Errorf("header %s: the Secret has no %s", header.Name, header.SecretKey)
			}
		}
		a.Headers[header.Name] = policy.NewSecret(value)
	}
	return a, nil
}

// Client reaches one server and no other, for a while.
type Client struct {
	http      *http.Client
	transport *http.Transport
}

// Transport is how the server is reached by others.
func (c *Client) Transport() http.RoundTripper { return c.http.Transport }

// Close ends connections that are kept open.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Client checks that what a says fits together. The environment's proxies are honoured, as everywhere.
func (a Access) Client() (*Client, error) {
	switch {
	case !a.Bearer.Empty() && (a.User != "" || !a.Password.Empty()):
		return nil, errors.New("bearer token and user exclude each other")
	case a.User == "" && !a.Password.Empty():
		return nil, errors.New("password without a user")
	case (len(a.Certificate) == 0) != a.Key.Empty():
		return nil, errors.New("certificate and key: give both or neither")
	}
	for name := range a.Headers {
		if strings.EqualFold(name, "Authorization") && (!a.Bearer.Empty() || a.User != "") {
			return nil, errors.New("header Authorization: there is a bearer token or a user already")
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.ServerName}
	if len(a.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(a.CA) {
			return nil, errors.New("ca: no certificate in it (PEM is expected)")
		}
	}
	if len(a.Certificate) > 0 {
		pair, err := tls.X509KeyPair(a.Certificate, []byte(a.Key.Reveal()))
		if err != nil {
			return nil, fmt.Errorf("certificate and key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, Control: noMetadata}).DialContext
	return &Client{http: &http.Client{Transport: &caller{access: a, next: t}, CheckRedirect: staysHere}, transport: t}, nil
}

// noMetadata keeps away from link-local addresses, where clouds hand out credentials of the machine to whoever asks.
func noMetadata(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip.IsLinkLocalUnicast() {
		return fmt.Errorf("%s is a link-local address: nothing that may be asked is there", host)
	}
	return nil
}

// maxRedirects are followed within one server.
const maxRedirects = 3

// staysHere follows no redirect to another server: credentials are for the one that was named.
func staysHere(next *http.Request, before []*http.Request) error {
	first := before[0].URL
	switch {
	case next.URL.Scheme != first.Scheme || next.URL.Host != first.Host:
		return errors.New("it redirects to another server, which is not followed")
	case len(before) > maxRedirects:
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	}
	return nil
}

// caller adds credentials to requests.
type caller struct {
	access Access
	next   http.RoundTripper
}

// RoundTrip leaves the request as it is, as it has to.
func (c *caller) RoundTrip(request *http.Request) (*http.Response, error) {
	r := request.Clone(request.Context())
	for name, value := range c.access.Headers {
		r.Header.Set(name, value.Reveal())
	}
	switch {
	case !c.access.Bearer.Empty():
		r.Header.Set("Authorization", "Bearer "+c.access.Bearer.Reveal())
	case c.access.User != "":
		r.SetBasicAuth(c.access.User, c.access.Password.Reveal())
	}
	return c.next.RoundTrip(r)
}
