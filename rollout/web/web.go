// Package web asks servers over HTTP on behalf of a Rollout: one request, one answer, bounded in time and size.
//
// Only a whole answer with a status of 2xx is one; everything else is an error, so that what follows from no answer is
// decided elsewhere. Credentials go to the server that was named and to no other: a redirect elsewhere is not followed, and
// link-local addresses, where clouds hand out credentials, are not reached. Errors name the server and never say what a
// Secret holds, nor what the server answered.
package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

const (
	// maxAnswer bounds what one answer may cost.
	maxAnswer = 1 << 20
	// DefaultTimeout is that of a request which gives none.
	DefaultTimeout = 5 * time.Second
)

// Asker asks. Its zero value is ready, and may be used by several goroutines.
type Asker struct{}

// Ask makes one request and returns the body of the answer. secret is the content of the Secret that the request names,
// nil for none.
func (Asker) Ask(ctx context.Context, request v1alpha1.HTTPRequest, secret map[string][]byte) ([]byte, error) {
	server, err := Server(request.URL)
	if err != nil {
		return nil, err
	}
	body, err := ask(ctx, server, request, secret)
	if err != nil {
		return nil, errors.New(maskOf(secret).Clean(fmt.Sprintf("%s://%s%s: %v", server.Scheme, server.Host, server.Path, err)))
	}
	return body, nil
}

// Server reads the URL of one.
func Server(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("the URL cannot be read (write https://HOST/PATH)") // err quotes it, with what credentials it has
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%s: not an http or https URL (write https://HOST/PATH)", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("%s: credentials do not belong into the URL (put them into a Secret)", u.Redacted())
	}
	return u, nil
}

func maskOf(secret map[string][]byte) policy.Mask {
	var values []policy.Secret
	for _, value := range secret {
		values = append(values, policy.NewSecret(string(value)))
	}
	return policy.NewMask(values)
}

func ask(ctx context.Context, server *url.URL, spec v1alpha1.HTTPRequest, secret map[string][]byte) ([]byte, error) {
	access, err := AccessOf(spec.ServerAccess, secret)
	if err != nil {
		return nil, err
	}
	client, err := access.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	timeout := spec.Timeout.Duration
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	request, err := requestOf(ctx, server, spec, policy.NewSecret(string(secret[keySigning])))
	if err != nil {
		return nil, err
	}
	answer, err := client.http.Do(request)
	if err != nil {
		return nil, because(ctx, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, because(ctx, err)
	case answer.StatusCode < 200 || answer.StatusCode >= 300:
		return nil, fmt.Errorf("it answers HTTP %d", answer.StatusCode)
	case len(body) > maxAnswer:
		return nil, errors.New("it answers with more than 1 MiB")
	}
	return body, nil
}

func requestOf(ctx context.Context, server *url.URL, spec v1alpha1.HTTPRequest, key policy.Secret) (*http.Request, error) {
	method := spec.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, server.String(), strings.NewReader(spec.Body))
	if err != nil {
		return nil, errors.New("it makes no request")
	}
	request.Header.Set("User-Agent", "slipway-agent")
	request.Header.Set("Accept", "application/json")
	if bytes.HasPrefix(bytes.TrimSpace([]byte(spec.Body)), []byte("{")) {
		request.Header.Set("Content-Type", "application/json")
	}
	if !key.Empty() {
		request.Header.Set("X-Signature", policy.Signature(key, []byte(spec.Body)))
	}
	return request, nil
}

// because takes the address out of an error, and says what ended the wait.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
