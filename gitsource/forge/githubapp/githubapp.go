// Package githubapp gets the passwords with which an installation of a GitHub App reads and pushes repositories.
//
// It promises one request for a token until shortly before that expires, however many ask; and that neither the
// app's key nor a token appears in an error. It refuses an API that is not reached by https, this machine's own
// excepted, and follows no redirect: both would show the app's key's word to somebody else.
package githubapp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
)

// DefaultAPI is the API of github.com.
const DefaultAPI = "https://api.github.com"

const (
	early    = 5 * time.Minute  // before a token expires another is asked for
	lifetime = 9 * time.Minute  // of what the app shows for itself; GitHub takes 10 minutes
	skew     = time.Minute      // that clocks may differ by
	timeout  = 30 * time.Second // of a request
	longest  = 64 << 10         // bytes of an answer
)

// Options of an Installation.
type Options struct {
	App          string        // the app's id, or its client id
	Installation string        // the id of its installation in an organization or at a user
	PrivateKey   policy.Secret // PEM, as GitHub makes it
	API          string        // default DefaultAPI; of an Enterprise Server https://HOST/api/v3
	Now          func() time.Time
}

// Installation gives out tokens. Its methods may be called from several goroutines.
type Installation struct {
	app  string
	url  string
	key  *rsa.PrivateKey
	now  func() time.Time
	http *http.Client

	turn    chan struct{} // one request at a time; guards what follows
	token   policy.Secret
	expires time.Time
}

// New checks the options. It does not use the network.
func New(o Options) (*Installation, error) {
	if o.App == "" || o.Now == nil {
		return nil, errors.New("github app: its id and a clock are required")
	}
	if o.Installation == "" || strings.Trim(o.Installation, "0123456789") != "" {
		return nil, fmt.Errorf("github app %s: installation %q is no number", o.App, o.Installation)
	}
	if o.API == "" {
		o.API = DefaultAPI
	}
	api, err := url.Parse(strings.TrimSuffix(o.API, "/"))
	if err != nil || api.Host == "" || api.User != nil || (api.Scheme != "https" && !(api.Scheme == "http" && loopback(api.Hostname()))) {
		return nil, fmt.Errorf("github app %s: want the URL of the API as https://HOST/PATH, without credentials", o.App)
	}
	key, err := parseKey([]byte(o.PrivateKey.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("github app %s: %w", o.App, err)
	}
	return &Installation{
		app: o.App, url: api.String() + "/app/installations/" + o.Installation + "/access_tokens", key: key, now: o.Now,
		http: &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		turn: make(chan struct{}, 1),
	}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseKey reads PKCS#1, which GitHub makes, and PKCS#8. Its errors say nothing of the key.
func parseKey(content []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errors.New("its private key is not PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if key, ok := parsed.(*rsa.PrivateKey); err == nil && ok {
		return key, nil
	}
	return nil, errors.New("its private key is no RSA key; GitHub makes one in the app's settings")
}

// Token returns a token that is good for some minutes at least. If GitHub cannot be asked, one that has
// not expired yet has to do.
func (i *Installation) Token(ctx context.Context) (policy.Secret, error) {
	select {
	case i.turn <- struct{}{}:
	case <-ctx.Done():
		return policy.Secret{}, fmt.Errorf("github app %s: %w: %w", i.app, gitsource.ErrUnreachable, ctx.Err())
	}
	defer func() { <-i.turn }()
	if i.now().Before(i.expires.Add(-early)) {
		return i.token, nil
	}
	token, expires, err := i.ask(ctx)
	switch {
	case err == nil:
		i.token, i.expires = token, expires
	case errors.Is(err, gitsource.ErrUnreachable) && i.now().Before(i.expires.Add(-skew)):
		return i.token, nil
	default:
		return policy.Secret{}, fmt.Errorf("github app %s: %w", i.app, err)
	}
	return token, nil
}

func (i *Installation) ask(ctx context.Context) (policy.Secret, time.Time, error) {
	word, err := i.word()
	if err != nil {
		return policy.Secret{}, time.Time{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, bytes.NewReader(nil))
	if err != nil {
		return policy.Secret{}, time.Time{}, err
	}
	request.Header.Set("Authorization", "Bearer "+word)
	request.Header.Set("Accept", "application/vnd.github+json")
	request.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	answer, err := i.http.Do(request)
	if err != nil {
		return policy.Secret{}, time.Time{}, fmt.Errorf("%w: %w", gitsource.ErrUnreachable, err)
	}
	defer func() { _ = answer.Body.Close() }()
	switch answer.StatusCode {
	case http.StatusCreated:
	case http.StatusUnauthorized:
		return policy.Secret{}, time.Time{}, errors.New("GitHub does not accept its key; correct the app's id or its private key, or this machine's clock")
	case http.StatusForbidden, http.StatusNotFound:
		return policy.Secret{}, time.Time{}, fmt.Errorf("GitHub has no such installation, or it is suspended (%s); correct its id or install the app", answer.Status)
	default:
		return policy.Secret{}, time.Time{}, fmt.Errorf("%w: GitHub answers %s", gitsource.ErrUnreachable, answer.Status)
	}
	var body struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, longest)).Decode(&body); err != nil || body.Token == "" || body.Expires.IsZero() {
		return policy.Secret{}, time.Time{}, fmt.Errorf("%w: GitHub's answer holds no token", gitsource.ErrUnreachable) // not quoted: it may hold half of one
	}
	return policy.NewSecret(body.Token), body.Expires, nil
}

// word is what the app shows for itself: a JWT (RFC 7519) signed with RS256.
func (i *Installation) word() (string, error) {
	now := i.now()
	claims, err := json.Marshal(map[string]any{"iat": now.Add(-skew).Unix(), "exp": now.Add(lifetime).Unix(), "iss": i.app})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", errors.New("its private key cannot sign")
	}
	return text + "." + encode(signature), nil
}
