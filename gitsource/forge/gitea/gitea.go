// Package gitea speaks to a Gitea, or a Forgejo, about what is beside Git: pull requests, comments, reviews, statuses.
//
// Asking twice for the same has the effect of asking once, so that a caller may die at any point and ask again. Errors are
// of type *forge.Error; they name host, repository, attempt and cause, never the token.
//
// It uses the dozen calls that it needs over net/http. The host's own SDK asks the host for its version when it is made,
// keeps the context in the client, and brings modules for signing requests that nobody here signs.
package gitea

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/policy"
)

// Options of a Client.
type Options struct {
	URL   string // of the host, "https://git.example.com", with the path below which it lives
	Repo  string // "fleet/production"
	User  string // login whom the token belongs to
	Token policy.Secret
	// Anonymous is a client without user and token, which reads what the host shows to everybody.
	Anonymous bool
	// HTTP carries the calls; default one that gives up after 30 s. Redirects are never followed.
	HTTP *http.Client
}

// Client speaks about one repository. It may be used by several goroutines.
type Client struct {
	base  *url.URL // of the API
	repo  string
	user  string
	token policy.Secret
	http  *http.Client
}

const (
	patience  = 30 * time.Second
	maxAnswer = 32 << 20 // bytes
	pageSize  = 50       // the most that a Gitea gives by default
	maxPages  = 40       // of one list
)

// New checks the options. It speaks to nobody.
func New(o Options) (*Client, error) {
	base, err := url.Parse(strings.TrimSuffix(o.URL, "/"))
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("gitea: URL of the host: want http or https, without credentials and query")
	}
	owner, name, both := strings.Cut(o.Repo, "/")
	if !both || !plain(owner) || !plain(name) {
		return nil, fmt.Errorf("gitea: repository %q: want OWNER/NAME", o.Repo)
	}
	switch {
	case o.Anonymous && (o.User != "" || !o.Token.Empty()):
		return nil, fmt.Errorf("gitea: %s: a user or token, and anonymous: keep one of them", o.Repo)
	case !o.Anonymous && (o.User == "" || o.Token.Empty()):
		return nil, fmt.Errorf("gitea: %s: no user or no token (make one with the scopes write:repository and write:issue)", o.Repo)
	}
	client := http.Client{Timeout: patience}
	if o.HTTP != nil {
		client = *o.HTTP
	}
	// A redirect turns a POST into a GET, and may lead the token elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: base.JoinPath("api", "v1"), repo: o.Repo, user: o.User, token: o.Token, http: &client}, nil
}

// plain reports whether s is what Gitea allows as a name, which never needs escaping.
func plain(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
}

// call is one request below the repository.
type call struct {
	op     string // for errors
	method string // default GET
	path   []string
	query  url.Values
	in     any          // sent as JSON; nil for nothing
	out    any          // filled from JSON; nil for nothing
	header *http.Header // set to that of the answer; nil for nothing
}

func (c *Client) do(ctx context.Context, call call) error {
	failed := &forge.Error{Host: c.base.Host, Repo: c.repo, Op: call.op}
	var body io.Reader
	if call.in != nil {
		content, err := json.Marshal(call.in)
		if err != nil {
			return fmt.Errorf("gitea: %s: %w", call.op, err)
		}
		body = bytes.NewReader(content)
	}
	target := c.base.JoinPath("repos", c.repo)
	for _, part := range call.path {
		target = target.JoinPath(url.PathEscape(part))
	}
	target.RawQuery = call.query.Encode()
	request, err := http.NewRequestWithContext(ctx, cmp.Or(call.method, http.MethodGet), target.String(), body)
	if err != nil {
		return fmt.Errorf("gitea: %s: %w", call.op, err)
	}
	if !c.token.Empty() {
		request.Header.Set("Authorization", "token "+c.token.Reveal())
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL says nothing that Op does not
		}
		failed.Err = err
		return failed
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		failed.Err = err
		return failed
	}
	if failed.Code = response.StatusCode; failed.Code < 200 || failed.Code > 299 {
		failed.Err, failed.Reason = meaning(failed.Code), reason(response, content)
		failed.After = after(response)
		return failed
	}
	if len(content) > maxAnswer {
		failed.Reason = fmt.Sprintf("an answer of more than %d bytes", maxAnswer)
		return failed
	}
	if call.header != nil {
		*call.header = response.Header
	}
	if call.out == nil {
		return nil
	}
	if err := json.Unmarshal(content, call.out); err != nil {
		failed.Err = fmt.Errorf("no answer of a Gitea: %w", err)
		return failed
	}
	return nil
}

// meaning is the error on which callers branch; nil for others.
func meaning(code int) error {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return forge.ErrDenied
	case http.StatusNotFound:
		return forge.ErrNotFound
	case http.StatusMethodNotAllowed, http.StatusConflict, http.StatusLocked:
		return forge.ErrBlocked
	}
	return nil
}

// What a host that has had too much may ask for; and what it gets when it does not say how long.
const (
	longestAfter = time.Hour
	defaultAfter = time.Minute
)

// after is for how long a host wants to be left alone (RFC 9110, 10.2.3); 0 where it does not say so.
func after(response *http.Response) time.Duration {
	limited := response.StatusCode == http.StatusTooManyRequests
	if !limited && response.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	said := response.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(said, 10, 32); err == nil {
		return min(max(time.Duration(seconds)*time.Second, time.Second), longestAfter)
	}
	if at, err := http.ParseTime(said); err == nil {
		return min(max(time.Until(at), time.Second), longestAfter)
	}
	if limited {
		return defaultAfter
	}
	return 0
}

// reason is what the host says about a failure, in one short line.
func reason(response *http.Response, content []byte) string {
	if response.StatusCode/100 == 3 {
		return "moved (give the URL and the name of the repository as the host spells them)"
	}
	var told struct{ Message string }
	if json.Unmarshal(content, &told) != nil {
		return ""
	}
	line := strings.Join(strings.Fields(told.Message), " ")
	if runes := []rune(line); len(runes) > 300 {
		line = string(runes[:300]) + "..."
	}
	return line
}

// list reads pages until visit returns false or a page is not full.
func list[T any](ctx context.Context, c *Client, call call, visit func(T) bool) error {
	query := call.query
	for page := 1; page <= maxPages; page++ {
		var items []T
		call.query, call.out = url.Values{"page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(pageSize)}}, &items
		for k, v := range query {
			call.query[k] = v
		}
		if err := c.do(ctx, call); err != nil {
			return err
		}
		for _, item := range items {
			if !visit(item) {
				return nil
			}
		}
		if len(items) == 0 { // a host may be configured to give fewer than asked for
			return nil
		}
	}
	return &forge.Error{
		Host: c.base.Host, Repo: c.repo, Op: call.op, Code: http.StatusOK,
		Reason: fmt.Sprintf("more than %d pages: what is looked for was not among them", maxPages),
	}
}
