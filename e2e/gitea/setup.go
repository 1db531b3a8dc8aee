package gitea

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// User is an account. The token may do all that the user may.
type User struct {
	Name, Email, Password, Token string
}

// Repository is a repository of the host.
type Repository struct {
	Name string // OWNER/NAME
	URL  string // to clone from, without credentials
}

// CloneURL returns the URL with a user's token in it.
func (r Repository) CloneURL(u User) string {
	return strings.Replace(r.URL, "://", "://"+url.UserPassword(u.Name, u.Token).String()+"@", 1)
}

// Refused is an answer of the host that is not a good one.
type Refused struct {
	Call string // "POST repos/fleet/production/pulls"
	Code int
	Text string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("gitea: %s: HTTP %d: %s", r.Call, r.Code, r.Text)
}

// Call makes one call of the API, by a path below /api/v1/, as a user. In and out are JSON; nil for none.
func (h *Host) Call(ctx context.Context, as User, method, path string, in, out any) error {
	return h.call(ctx, method, path, in, out, func(r *http.Request) { r.Header.Set("Authorization", "token "+as.Token) })
}

func (h *Host) call(ctx context.Context, method, path string, in, out any, sign func(*http.Request)) error {
	var body io.Reader
	if in != nil {
		content, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("gitea: %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(content)
	}
	r, err := http.NewRequestWithContext(ctx, method, h.URL+"/api/v1/"+path, body)
	if err != nil {
		return fmt.Errorf("gitea: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	sign(r)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("gitea: %w", err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("gitea: %s %s: %w", method, path, err)
	}
	if answer.StatusCode/100 != 2 {
		return &Refused{Call: method + " " + path, Code: answer.StatusCode, Text: strings.TrimSpace(string(content))}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("gitea: %s %s: %w", method, path, err)
	}
	return nil
}

// User makes an account with a password and a token, or returns the one that was made here before.
func (h *Host) User(ctx context.Context, name string) (User, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.users[name]; ok {
		return known, nil
	}
	u := User{Name: name, Email: name + "@example.com", Password: rand.Text()}
	err := h.Call(ctx, h.Admin, http.MethodPost, "admin/users", map[string]any{
		"username": u.Name, "email": u.Email, "password": u.Password, "must_change_password": false,
	}, nil)
	if err != nil {
		return User{}, err
	}
	if u.Token, err = h.Token(ctx, u, "all"); err != nil {
		return User{}, err
	}
	h.users[name] = u
	return u, nil
}

// Token makes a token with the scopes given, "write:repository".
func (h *Host) Token(ctx context.Context, u User, scopes ...string) (string, error) {
	var made struct{ SHA1 string }
	err := h.call(ctx, http.MethodPost, "users/"+u.Name+"/tokens", map[string]any{"name": "t-" + rand.Text(), "scopes": scopes}, &made,
		func(r *http.Request) { r.SetBasicAuth(u.Name, u.Password) })
	return made.SHA1, err
}

// Org makes an organization. The users given own it.
func (h *Host) Org(ctx context.Context, name string, owners ...User) error {
	if err := h.Call(ctx, h.Admin, http.MethodPost, "orgs", map[string]any{"username": name}, nil); err != nil {
		return err
	}
	var teams []struct {
		ID   int64
		Name string
	}
	if err := h.Call(ctx, h.Admin, http.MethodGet, "orgs/"+name+"/teams", nil, &teams); err != nil {
		return err
	}
	for _, t := range teams {
		for _, u := range owners {
			if err := h.Call(ctx, h.Admin, http.MethodPut, fmt.Sprintf("teams/%d/members/%s", t.ID, u.Name), nil, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// Repository makes an empty repository of an organization that only its members and the users given see. The users may push.
func (h *Host) Repository(ctx context.Context, org, name string, writers ...User) (Repository, error) {
	r := Repository{Name: org + "/" + name, URL: h.URL + "/" + org + "/" + name + ".git"}
	if err := h.Call(ctx, h.Admin, http.MethodPost, "orgs/"+org+"/repos", map[string]any{"name": name, "default_branch": "main", "private": true}, nil); err != nil {
		return Repository{}, err
	}
	for _, u := range writers {
		path := "repos/" + r.Name + "/collaborators/" + u.Name
		if err := h.Call(ctx, h.Admin, http.MethodPut, path, map[string]any{"permission": "write"}, nil); err != nil {
			return Repository{}, err
		}
	}
	return r, nil
}

// Hook has pushes to a repository told to an address, signed with the secret.
func (h *Host) Hook(ctx context.Context, r Repository, address, secret string) error {
	return h.Call(ctx, h.Admin, http.MethodPost, "repos/"+r.Name+"/hooks", map[string]any{
		"type": "gitea", "active": true, "events": []string{"push", "pull_request"},
		"config": map[string]string{"url": address, "content_type": "json", "secret": secret},
	}, nil)
}

// Protection is what a branch demands. Nobody else than Pushers pushes to it, administrators neither.
type Protection struct {
	Branch    string
	Pushers   []string // users
	Approvals int      // by people who may write and did not write it
	Contexts  []string // statuses that have to be a success
	// Stale keeps approvals of commits before the last one; by default they are dismissed.
	Stale bool
}

// Protect protects a branch.
func (h *Host) Protect(ctx context.Context, r Repository, p Protection) error {
	return h.Call(ctx, h.Admin, http.MethodPost, "repos/"+r.Name+"/branch_protections", map[string]any{
		"rule_name": p.Branch, "enable_push": len(p.Pushers) > 0, "enable_push_whitelist": len(p.Pushers) > 0, "push_whitelist_usernames": p.Pushers,
		"required_approvals": p.Approvals, "enable_status_check": len(p.Contexts) > 0,
		"status_check_contexts": p.Contexts, "dismiss_stale_approvals": !p.Stale, "block_on_rejected_reviews": true, "block_admin_merge_override": true,
	}, nil)
}

// Review is a person's word on a pull request: event is "APPROVED", "REQUEST_CHANGES" or "COMMENT".
func (h *Host) Review(ctx context.Context, as User, r Repository, number int64, event, text string) error {
	return h.Call(ctx, as, http.MethodPost, fmt.Sprintf("repos/%s/pulls/%d/reviews", r.Name, number), map[string]any{"event": event, "body": text}, nil)
}
