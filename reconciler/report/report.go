// Package report connects an agent with the server: status and revert requests
// go out, nudges come in, over HTTPS.
//
// Losing every message costs only time. Agents also poll, and a revert request
// stands in the Application's status and is sent again until Git shows it.
package report

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Paths of the server's API that agents use.
const (
	PathReverts = "/v1/reverts" // POST a RevertRequest, answered by an Answer
	PathReports = "/v1/reports" // POST a Report
	PathNudges  = "/v1/nudges"  // GET a stream of server-sent events, each data line a Nudge

	PathRollouts = "/v1/rollouts" // POST a v1alpha1.SignedRollouts
)

// Answer says what the server did with a revert request.
type Answer struct {
	Commit     string `json:"commit,omitempty"`     // the commit on the followed branch
	Branch     string `json:"branch,omitempty"`     // the branch that waits for a person
	Why        string `json:"why,omitempty"`        // the branch waits, where the request itself does not say so
	Superseded bool   `json:"superseded,omitempty"` // the tip has moved: compute again and send that
	Error      string `json:"error,omitempty"`      // why it was refused
}

// Report is the state of one cluster's Applications.
type Report struct {
	Cluster      string        `json:"cluster"`
	At           time.Time     `json:"at"`
	Applications []Application `json:"applications"`
}

// Application is one line of a Report.
type Application struct {
	Name        string `json:"name"`
	App         string `json:"app"`
	Environment string `json:"environment,omitempty"`
	Path        string `json:"path"`
	Revision    string `json:"revision,omitempty"`
	SetDigest   string `json:"setDigest,omitempty"`
	Healthy     bool   `json:"healthy"`
	Message     string `json:"message,omitempty"`
}

// Nudge is a hint that a ref of a repository may have moved.
type Nudge struct {
	URL string `json:"url"`
	Ref string `json:"ref"`
}

// Options for New.
type Options struct {
	Server  string       // base URL of the server, https://...
	Cluster string       // name of this cluster
	HTTP    *http.Client // with the trust that the server's certificate needs
}

// Client speaks with one server.
type Client struct {
	base    *url.URL
	cluster string
	http    *http.Client
}

// New checks the options; it opens no connection.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.Server)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("server %q: want a URL like https://slipway.example.com", o.Server)
	}
	if o.Cluster == "" {
		return nil, errors.New("cluster: a name is required; it is the one under clusters/ in the environment repository")
	}
	if o.HTTP == nil {
		o.HTTP = http.DefaultClient
	}
	return &Client{base: base, cluster: o.Cluster, http: o.HTTP}, nil
}

// Revert asks the server to carry out a signed request. An error means that
// nothing is known; the same request may be sent again.
func (c *Client) Revert(ctx context.Context, request v1alpha1.RevertRequest) (Answer, error) {
	var answer Answer
	if err := c.post(ctx, PathReverts, request, &answer); err != nil {
		return Answer{}, fmt.Errorf("revert request for %s in %s: %w", request.App, request.Environment, err)
	}
	if answer.Error != "" {
		return answer, fmt.Errorf("revert request for %s in %s: the server refused it: %s", request.App, request.Environment, answer.Error)
	}
	return answer, nil
}

// Report sends the state of the cluster.
func (c *Client) Report(ctx context.Context, report Report) error {
	report.Cluster = c.cluster
	return c.post(ctx, PathReports, report, nil)
}

// Rollouts sends how far the Rollouts of the cluster have come.
func (c *Client) Rollouts(ctx context.Context, signed v1alpha1.SignedRollouts) error {
	return c.post(ctx, PathRollouts, signed, nil)
}

const maxAnswer = 1 << 20

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("server cannot be reached: %w", err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("server's answer was cut off: %w", err)
	}
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("server answered %s: %s", response.Status, strings.TrimSpace(string(content)))
	}
	if out == nil {
		if response.StatusCode >= http.StatusBadRequest {
			return fmt.Errorf("server answered %s: %s", response.Status, strings.TrimSpace(string(content)))
		}
		return nil
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("server answered %s with something that is not JSON: %w", response.Status, err)
	}
	return nil
}

// Nudges calls heard for every nudge until ctx ends. It reconnects by itself,
// after 1 s at first and at most after 30 s; connected is called after each connect, because
// what moved while the line was down was not heard.
func (c *Client) Nudges(ctx context.Context, connected func(), heard func(Nudge)) {
	const shortest, longest = time.Second, 30 * time.Second
	wait := shortest
	for ctx.Err() == nil {
		if c.listen(ctx, connected, heard) {
			wait = shortest
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// listen reads one stream to its end and reports whether it was ever connected.
func (c *Client) listen(ctx context.Context, connected func(), heard func(Nudge)) bool {
	target := c.base.JoinPath(PathNudges)
	target.RawQuery = url.Values{"cluster": {c.cluster}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return false
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := c.http.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return false
	}
	connected()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, found := strings.CutPrefix(lines.Text(), "data:")
		if !found {
			continue
		}
		var nudge Nudge
		if json.Unmarshal([]byte(data), &nudge) == nil {
			heard(nudge)
		}
	}
	return true
}
