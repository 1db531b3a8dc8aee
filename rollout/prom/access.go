package prom

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

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

// maxAnswer bounds what one answer may cost; thousands of series fit.
const maxAnswer = 16 << 20

func parse(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("prometheus: the URL cannot be read (write http://HOST:PORT)") // err quotes it, with what credentials it has
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("prometheus %s: not an http or https URL (write http://HOST:PORT)", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("prometheus %s: credentials do not belong into the URL (give user and password apart)", u.Redacted())
	}
	return u, nil
}

// transport is plain HTTP with our trust. Environment proxies are honoured, as everywhere.
func (a Access) transport() (*http.Transport, error) {
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
	return t, nil
}

// wrap adds credentials to requests and a bound to answers.
func (a Access) wrap(next http.RoundTripper) http.RoundTripper { return &caller{access: a, next: next} }

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
	response, err := c.next.RoundTrip(r)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	}
	return response, err
}

// bare takes the address out of an error: the caller names the server.
func bare(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
