package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/gitea"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler"
)

// hostPatience bounds one call, so that a host that hangs does not keep a worker of the loop for long.
const hostPatience = 15 * time.Second

// pullRequests asks the hosts of repositories, with the credentials that their sources have for Git. One client for each
// keeps its connections.
type pullRequests struct {
	mu    sync.Mutex
	known map[string]*gitea.Client // by URL and credentials
}

// AllOpen returns all open pull requests to a branch, or an error.
func (p *pullRequests) AllOpen(ctx context.Context, at reconciler.Hosted, base string) ([]forge.PullRequest, error) {
	if at.Host != v1alpha1.HostGitea {
		return nil, fmt.Errorf("host %q: this version speaks with gitea alone, Forgejo included", at.Host)
	}
	client, err := p.client(at)
	if err != nil {
		return nil, err
	}
	all, err := client.AllOpen(ctx, base)
	var failed *forge.Error
	switch {
	case errors.As(err, &failed) && failed.After > 0:
		return nil, fmt.Errorf("%w: %w", err, &gitsource.BusyError{Host: failed.Host, After: failed.After})
	case errors.As(err, &failed) && failed.Temporary():
		return nil, fmt.Errorf("%w: %w", gitsource.ErrUnreachable, err)
	}
	return all, err
}

func (p *pullRequests) client(at reconciler.Hosted) (*gitea.Client, error) {
	key := identify(at.URL, at.Credentials)
	p.mu.Lock()
	defer p.mu.Unlock()
	if client, found := p.known[key]; found {
		return client, nil
	}
	options, err := giteaOptions(at)
	if err != nil {
		return nil, err
	}
	client, err := gitea.New(options)
	if err != nil {
		return nil, err
	}
	if p.known == nil {
		p.known = map[string]*gitea.Client{}
	}
	p.known[key] = client
	return client, nil
}

// giteaOptions turn what Git is read with into what the API is asked with: hosts take the same token for both.
func giteaOptions(at reconciler.Hosted) (gitea.Options, error) {
	base, repo, err := forge.SplitCloneURL(at.URL)
	if err != nil {
		return gitea.Options{}, err
	}
	c := at.Credentials
	o := gitea.Options{URL: base, Repo: repo, User: c.Username, Token: c.Password}
	switch {
	case c.App != nil:
		return o, errors.New("the Secret is of a GitHub App, and the host is a gitea; give username and password")
	case !c.BearerToken.Empty():
		o.User, o.Token = "bearer", c.BearerToken // the name is for finding one's own comments, of which there are none
	case c.Username == "" && c.Password.Empty():
		o.User, o.Token, o.Anonymous = "", policy.Secret{}, true
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is documented to be one
	if transport.TLSClientConfig, err = trusting(c); err != nil {
		return o, err
	}
	o.HTTP = &http.Client{Timeout: hostPatience, Transport: transport}
	return o, nil
}

// trusting is the client's side of TLS, as for Git.
func trusting(c reconciler.Credentials) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(c.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("ca.crt holds no certificate in PEM")
		}
	}
	if len(c.Certificate) > 0 || !c.CertificateKey.Empty() {
		pair, err := tls.X509KeyPair(c.Certificate, []byte(c.CertificateKey.Reveal()))
		if err != nil {
			return nil, fmt.Errorf("tls.crt and tls.key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
