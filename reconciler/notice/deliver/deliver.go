// Package deliver takes a notice to its receiver over HTTP: Slack, a webhook, or an Alertmanager. Each call is one attempt,
// bounded in time; whether there is another one is up to the caller. Errors name what went wrong, never the address or the token:
// addresses of incoming webhooks are secrets themselves.
package deliver

import (
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
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler/notice"
)

// Notice is a message with its text.
type Notice struct {
	notice.Message
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// Sender sends over HTTP. It may be used by several goroutines.
type Sender struct{ http *http.Client }

const (
	patience = 10 * time.Second // for one attempt
	// alertFor is when an alert ends by itself. Without an end an Alertmanager lets it end after five minutes (resolve_timeout),
	// since it expects to be told again and again.
	alertFor = 24 * time.Hour
)

// ErrInvalid says that another attempt is pointless until somebody changes the Secret.
var ErrInvalid = errors.New("cannot be sent with this Secret")

// New returns a Sender. Redirects are not followed: they could lead a token elsewhere.
func New() *Sender {
	return &Sender{&http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Send makes one attempt for a provider that is spoken to over HTTP.
func (s *Sender) Send(ctx context.Context, provider v1alpha1.NotificationProvider, secret map[string][]byte, n Notice) error {
	address, err := addressOf(secret)
	if err != nil {
		return err
	}
	var body any
	headers := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"slipway-agent"}}
	key := policy.Secret{}
	switch provider {
	case v1alpha1.NotifySlack:
		body = map[string]string{"text": escaped(n.Text)}
	case v1alpha1.NotifyWebhook:
		if key = policy.NewSecret(string(secret["key"])); key.Empty() {
			return fmt.Errorf("%w: it has no key to sign with", ErrInvalid)
		}
		body = n
	case v1alpha1.NotifyAlertmanager:
		address = address.JoinPath("api", "v2", "alerts")
		if token := strings.TrimSpace(string(secret["token"])); token != "" {
			headers.Set("Authorization", "Bearer "+token)
		}
		body = []any{alert(n)}
	default:
		return fmt.Errorf("%w: provider %q is not sent over HTTP", ErrInvalid, provider)
	}
	content, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !key.Empty() {
		headers.Set("X-Signature", policy.Signature(key, content))
	}
	return s.post(ctx, address, headers, content)
}

func (s *Sender) post(ctx context.Context, address *url.URL, headers http.Header, content []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address.String(), bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("%w: the address is none", ErrInvalid) // err would show it
	}
	request.Header = headers
	answer, err := s.http.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the address
		}
		return fmt.Errorf("the receiver does not answer: %w", err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection is used again
	switch code := answer.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code >= 500:
		return fmt.Errorf("the receiver answers HTTP %d", code)
	default:
		return fmt.Errorf("%w: the receiver answers HTTP %d", ErrInvalid, code)
	}
}

func addressOf(secret map[string][]byte) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(string(secret["address"])))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%w: its address is no http or https URL", ErrInvalid)
	}
	return u, nil
}

// escaped keeps a text from being more than text to Slack: from calling everybody, say.
func escaped(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// alert says by the same labels when a trouble begins and when it has ended.
func alert(n Notice) map[string]any {
	a := map[string]any{
		"labels": map[string]string{
			"alertname": "Slipway" + n.Kind, "severity": "warning", "cluster": n.Cluster, "namespace": n.Namespace,
			"name": n.Name, "application": n.Application, "environment": n.Environment,
		},
		"annotations": map[string]string{"summary": n.Text, "reason": n.Reason, "description": n.Message.Message, "revision": n.Revision},
		"startsAt":    n.At.UTC().Format(time.RFC3339),
	}
	ends := n.At
	if n.Ready == "False" {
		ends = ends.Add(alertFor)
	}
	a["endsAt"] = ends.UTC().Format(time.RFC3339)
	return a
}
