// Package client asks a Slipway server for runs, their logs and chains.
//
// A stream of logs survives servers that restart: it goes on behind the last line
// that was seen. A token is never sent in the clear to another machine, and never
// to where a server redirects to.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/policy"
)

// Options say where the server is and who asks.
type Options struct {
	URL   string        // https://HOST[:PORT], or http:// on a loopback address
	Token policy.Secret // may be empty where the server asks for none
	CA    []byte        // PEM of the authority that signed its certificate; empty: those of this machine
	Agent string        // User-Agent; may be empty
	// Backoff is the first wait before a stream is opened again, doubled up to 5 s: 200 ms if 0.
	Backoff time.Duration
}

// Client asks one server. It may be used by several goroutines.
type Client struct {
	base    *url.URL
	token   policy.Secret
	agent   string
	backoff time.Duration
	http    *http.Client
}

// patience bounds an answer that is no stream, silence a stream without a sign of life (a server gives one each 15 s).
const (
	patience = 30 * time.Second
	silence  = 45 * time.Second
)

// New checks the options. It asks nothing yet.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	switch {
	case err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http":
		return nil, fmt.Errorf("server %q: want https://HOST:PORT", o.URL)
	case base.User != nil:
		return nil, errors.New("server: its URL holds a login (a token is given apart)")
	case base.Scheme == "http" && !loopback(base.Hostname()):
		return nil, fmt.Errorf("server %s: plain HTTP to another machine would show the token to everybody between (use https://)", base.Host)
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: patience, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
	if len(o.CA) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("certificate authority of the server: no certificate in PEM (name the ca.crt that the server wrote)")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if o.Backoff <= 0 {
		o.Backoff = 200 * time.Millisecond
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: base, token: o.Token, agent: o.Agent, backoff: o.Backoff, http: &http.Client{Transport: transport, CheckRedirect: stay}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Error is an answer of the server that is none of what was asked for.
type Error struct {
	Server  string // host
	Status  int    // of HTTP
	Message string // the server's own words
}

func (e *Error) Error() string { return "server " + e.Server + ": " + e.Message }

// Unwrap returns builder.ErrNotFound where the server says so.
func (e *Error) Unwrap() error {
	if e.Status == http.StatusNotFound {
		return builder.ErrNotFound
	}
	return nil
}

// Temporary reports whether the same may be asked again later.
func (e *Error) Temporary() bool {
	return e.Status >= 500 && e.Status != http.StatusNotImplemented || e.Status == http.StatusTooManyRequests
}

func query(f builder.RunFilter) url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"repo": f.Repo, "branch": f.Branch, "commit": string(f.Commit), "trace": f.Trace, "digest": f.Digest, "before": f.Before,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for _, state := range f.States {
		q.Add("state", state.String())
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

// Runs returns the newest Runs that the filter lets through, newest first.
func (c *Client) Runs(ctx context.Context, f builder.RunFilter) ([]builder.Run, error) {
	var page struct {
		Runs []builder.Run `json:"runs"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/runs?"+query(f).Encode(), nil, &page)
	return page.Runs, err
}

// Run returns one Run; builder.ErrNotFound if there is none.
func (c *Client) Run(ctx context.Context, id string) (builder.Run, error) {
	var run builder.Run
	err := c.call(ctx, http.MethodGet, "/v1/runs/"+url.PathEscape(id), nil, &run)
	return run, err
}

// Cancel ends a Run, and returns how it stands then.
func (c *Client) Cancel(ctx context.Context, id, reason string) (builder.Run, error) {
	var run builder.Run
	err := c.call(ctx, http.MethodPost, "/v1/runs/"+url.PathEscape(id)+"/cancel", map[string]string{"reason": reason}, &run)
	return run, err
}

// Retry makes a new Run for the same commit.
func (c *Client) Retry(ctx context.Context, id string) (builder.Run, error) {
	var run builder.Run
	err := c.call(ctx, http.MethodPost, "/v1/runs/"+url.PathEscape(id)+"/retry", struct{}{}, &run)
	return run, err
}

// Trace returns the chain of a subject, as the server sees it.
func (c *Client) Trace(ctx context.Context, subject string) ([]chain.Stage, error) {
	var told struct {
		Stages []chain.Stage `json:"stages"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/trace/"+url.PathEscape(subject), nil, &told)
	return told.Stages, err
}

// call sends one request and decodes one answer.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	const most = 64 << 20
	if err := json.NewDecoder(io.LimitReader(response.Body, most)).Decode(into); err != nil {
		return fmt.Errorf("server %s: its answer cannot be read: %w (is this a Slipway server, of about the same version?)", c.base.Host, err)
	}
	return nil
}

// send returns an answer below 300; any other one is an *Error.
func (c *Client) send(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.base.String(), "/")+path, content)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", c.base.Host, err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if !c.token.Empty() {
		request.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	if c.agent != "" {
		request.Header.Set("User-Agent", c.agent)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, c.refused(response)
}

// unreachable says what to look at; the error of net/http repeats the URL.
func (c *Client) unreachable(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	wayOut := "is it running, and reachable from here?"
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		wayOut = "give the server's ca.crt with --server-ca"
	}
	return fmt.Errorf("server %s: %w (%s)", c.base.Host, err, wayOut)
}

func (c *Client) refused(response *http.Response) error {
	var said struct {
		Error string `json:"error"`
	}
	const most = 64 << 10
	if err := json.NewDecoder(io.LimitReader(response.Body, most)).Decode(&said); err != nil || said.Error == "" {
		said.Error = response.Status + " (is this a Slipway server?)"
	}
	return &Error{Server: c.base.Host, Status: response.StatusCode, Message: said.Error}
}
