package forge_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/policy"
)

const (
	secret = "a-secret-of-the-hook"
	before = "1111111111111111111111111111111111111111"
	after  = "2222222222222222222222222222222222222222"
	zero   = "0000000000000000000000000000000000000000"
)

// standard is a key as GitLab makes them.
var standard = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

var kinds = []forge.Kind{forge.GitHub, forge.GitLab, forge.Gitea}

// payload is a push as the documentation of each host words it, shortened to what is read and some of what is not.
func payload(kind forge.Kind, ref, before, after string) []byte {
	switch kind {
	case forge.GitHub:
		return fmt.Appendf(nil, `{"ref":%q,"before":%q,"after":%q,"created":false,"deleted":false,"forced":false,
"repository":{"id":7,"name":"shop","full_name":"acme/shop","clone_url":"https://git.example.com/acme/shop.git","ssh_url":"git@git.example.com:acme/shop.git","pushed_at":1700000000},
"pusher":{"name":"robin","email":"robin@example.com"},"commits":[],"head_commit":null}`, ref, before, after)
	case forge.GitLab:
		return fmt.Appendf(nil, `{"object_kind":"push","event_name":"push","ref":%q,"before":%q,"after":%q,"checkout_sha":%q,"user_id":3,
"user_name":"Robin Doe","user_username":"robin","project":{"id":7,"path_with_namespace":"acme/shop","git_http_url":"https://git.example.com/acme/shop.git","git_ssh_url":"git@git.example.com:acme/shop.git"},
"commits":[],"total_commits_count":0}`, ref, before, after, after)
	case forge.Gitea:
		return fmt.Appendf(nil, `{"ref":%q,"before":%q,"after":%q,"compare_url":"","commits":[],
"repository":{"id":7,"name":"shop","full_name":"acme/shop","clone_url":"https://git.example.com/acme/shop.git","ssh_url":"git@git.example.com:acme/shop.git"},
"pusher":{"id":3,"login":"robin","email":"robin@example.com"},"sender":{"login":"robin"}}`, ref, before, after)
	}
	return nil
}

func mac(key string, parts ...string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// sign is the header that a host sends with a body.
func sign(kind forge.Kind, key string, body []byte) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	switch kind {
	case forge.GitHub:
		h.Set("X-GitHub-Event", "push")
		h.Set("X-GitHub-Delivery", "d-1")
		h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac(key, string(body))))
	case forge.Gitea:
		h.Set("X-Gitea-Event", "push")
		h.Set("X-Gitea-Delivery", "d-1")
		h.Set("X-Gitea-Signature", hex.EncodeToString(mac(key, string(body))))
	case forge.GitLab:
		h.Set("X-Gitlab-Event", "Push Hook")
		h.Set("X-Gitlab-Event-UUID", "d-1")
		encoded, is := strings.CutPrefix(key, "whsec_")
		if !is {
			h.Set("X-Gitlab-Token", key)
			break
		}
		raw, _ := base64.StdEncoding.DecodeString(encoded)
		h.Set("webhook-id", "d-1")
		h.Set("webhook-timestamp", "1700000000")
		h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac(string(raw), "d-1.1700000000.", string(body))))
	}
	return h
}

func TestParse(t *testing.T) {
	for _, kind := range kinds {
		for _, key := range []string{secret, standard} {
			body := payload(kind, "refs/heads/release/1.2", before, after)
			got, err := forge.Parse(kind, sign(kind, key, body), body, policy.NewSecret(key))
			if err != nil {
				t.Fatal(kind, err)
			}
			sum := sha256.Sum256(body)
			want := forge.Push{
				Kind: kind, Delivery: "d-1", Digest: hex.EncodeToString(sum[:]), CloneURL: "https://git.example.com/acme/shop.git",
				SSHURL: "git@git.example.com:acme/shop.git", FullName: "acme/shop", Ref: "refs/heads/release/1.2", Before: before, After: after, Pusher: "robin",
			}
			if got != want {
				t.Errorf("%s: got %+v\nwant %+v", kind, got, want)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	type message struct {
		header http.Header
		body   []byte
		key    string
	}
	for name, c := range map[string]struct {
		change func(kind forge.Kind, m *message)
		resign bool
		want   error
	}{
		"changed body": {func(_ forge.Kind, m *message) { m.body[len(m.body)-2] ^= 1 }, false, forge.ErrSignature},
		"other secret": {func(_ forge.Kind, m *message) { m.key = "another" }, false, forge.ErrSignature},
		"prefix of it": {func(_ forge.Kind, m *message) { m.key = m.key[:8] }, false, forge.ErrSignature},
		"no secret":    {func(_ forge.Kind, m *message) { m.key = "" }, false, forge.ErrSignature},
		"no header":    {func(_ forge.Kind, m *message) { m.header = http.Header{} }, false, forge.ErrSignature},
		"SHA-1 alone": {func(_ forge.Kind, m *message) {
			m.header = http.Header{"X-Hub-Signature": {"sha1=" + strings.Repeat("0", 40)}}
		}, false, forge.ErrSignature},
		"no JSON":        {func(_ forge.Kind, m *message) { m.body = []byte("payload=%7B%7D") }, true, forge.ErrMalformed},
		"two values":     {func(_ forge.Kind, m *message) { m.body = append(m.body, "{}"...) }, true, forge.ErrMalformed},
		"empty":          {func(_ forge.Kind, m *message) { m.body = nil }, true, forge.ErrMalformed},
		"form":           {func(_ forge.Kind, m *message) { m.header.Set("Content-Type", "application/x-www-form-urlencoded") }, false, forge.ErrMalformed},
		"tag":            {func(k forge.Kind, m *message) { m.body = payload(k, "refs/tags/v1", before, after) }, true, forge.ErrUnknownEvent},
		"deleted branch": {func(k forge.Kind, m *message) { m.body = payload(k, "refs/heads/x", before, zero) }, true, forge.ErrUnknownEvent},
		"short ref":      {func(k forge.Kind, m *message) { m.body = payload(k, "main", before, after) }, true, forge.ErrMalformed},
		"option as ref":  {func(k forge.Kind, m *message) { m.body = payload(k, "refs/heads/--upload-pack=x", before, after) }, true, forge.ErrMalformed},
		"path as ref":    {func(k forge.Kind, m *message) { m.body = payload(k, "refs/heads/../../x", before, after) }, true, forge.ErrMalformed},
		"line in ref":    {func(k forge.Kind, m *message) { m.body = payload(k, "refs/heads/a\nb", before, after) }, true, forge.ErrMalformed},
		"short id":       {func(k forge.Kind, m *message) { m.body = payload(k, "refs/heads/main", before, "2222") }, true, forge.ErrMalformed},
		"option as id":   {func(k forge.Kind, m *message) { m.body = payload(k, "refs/heads/main", before, "--help") }, true, forge.ErrMalformed},
		"file URL": {func(_ forge.Kind, m *message) {
			m.body = []byte(strings.ReplaceAll(string(m.body), "https://git.example.com", "file:///etc"))
		}, true, forge.ErrMalformed},
	} {
		for _, kind := range kinds {
			m := message{body: payload(kind, "refs/heads/main", before, after), key: secret}
			m.header = sign(kind, secret, m.body)
			c.change(kind, &m)
			if c.resign {
				m.header = sign(kind, secret, m.body)
			}
			if name == "changed body" && kind == forge.GitLab {
				continue // X-Gitlab-Token does not cover it
			}
			push, err := forge.Parse(kind, m.header, m.body, policy.NewSecret(m.key))
			if !errors.Is(err, c.want) || push != (forge.Push{}) {
				t.Errorf("%s %s: got %+v, %v; want %v", kind, name, push, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s %s: the error tells the secret", kind, name)
			}
		}
	}
}

func TestParseOtherEvents(t *testing.T) {
	for kind, name := range map[forge.Kind]string{forge.GitHub: "X-GitHub-Event", forge.GitLab: "X-Gitlab-Event", forge.Gitea: "X-Gitea-Event"} {
		for _, event := range []string{"ping", "Tag Push Hook", "create", ""} {
			body := payload(kind, "refs/heads/main", before, after)
			header := sign(kind, secret, body)
			header.Set(name, event)
			if _, err := forge.Parse(kind, header, body, policy.NewSecret(secret)); !errors.Is(err, forge.ErrUnknownEvent) {
				t.Errorf("%s %q: %v", kind, event, err)
			}
		}
	}
}

// Whoever can only send must not be able to choose the weaker proof.
func TestGitLabIsNotTalkedDown(t *testing.T) {
	body := payload(forge.GitLab, "refs/heads/main", before, after)
	for name, header := range map[string]http.Header{
		"token for a key": {"X-Gitlab-Token": {standard}},
		"empty signature": {"Webhook-Id": {"d-1"}, "Webhook-Timestamp": {"1"}, "Webhook-Signature": {""}},
		"other version":   {"Webhook-Id": {"d-1"}, "Webhook-Timestamp": {"1"}, "Webhook-Signature": {"v2,AAAA"}},
		"time not covered": func() http.Header {
			h := sign(forge.GitLab, standard, body)
			h.Set("webhook-timestamp", "1700000001")
			return h
		}(),
		"name not covered":     func() http.Header { h := sign(forge.GitLab, standard, body); h.Set("webhook-id", "d-2"); return h }(),
		"moved point in names": func() http.Header { h := sign(forge.GitLab, standard, body); h.Del("webhook-id"); return h }(),
	} {
		if _, err := forge.Parse(forge.GitLab, header, body, policy.NewSecret(standard)); !errors.Is(err, forge.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	header := sign(forge.GitLab, standard, body)
	header.Set("webhook-signature", "v1,AAAA "+header.Get("webhook-signature"))
	if _, err := forge.Parse(forge.GitLab, header, body, policy.NewSecret(standard)); err != nil {
		t.Errorf("one of two signatures fits: %v", err)
	}
}

// FuzzParse: a body whose signature fits gives a Push that is safe to pass on or an error with a known cause; the same body
// with a signature of another key always gives ErrSignature.
func FuzzParse(f *testing.F) {
	for i, kind := range kinds {
		f.Add(uint8(i), payload(kind, "refs/heads/main", before, after))
		f.Add(uint8(i), payload(kind, "refs/tags/v1", zero, after))
	}
	f.Add(uint8(0), []byte(`{"ref":null,"repository":[]}`))
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		kind := kinds[int(which)%len(kinds)]
		key := secret
		if which > 127 {
			key = standard
		}
		push, err := forge.Parse(kind, sign(kind, key, body), body, policy.NewSecret(key))
		switch {
		case err == nil:
			if !strings.HasPrefix(push.Ref, "refs/heads/") || len(push.After) < 40 || strings.Trim(string(push.After), "0") == "" ||
				!strings.HasPrefix(push.CloneURL, "http") || push.FullName == "" || strings.ContainsAny(push.Ref+push.CloneURL+push.FullName+push.Pusher, "\n\r\x00") {
				t.Errorf("not fit to pass on: %+v", push)
			}
		case errors.Is(err, forge.ErrSignature), !errors.Is(err, forge.ErrMalformed) && !errors.Is(err, forge.ErrUnknownEvent):
			t.Errorf("genuine, but %v", err)
		}
		if _, err := forge.Parse(kind, sign(kind, "another", body), body, policy.NewSecret(key)); !errors.Is(err, forge.ErrSignature) {
			t.Errorf("forged, but %v", err)
		}
	})
}

func TestParseKind(t *testing.T) {
	for _, k := range kinds {
		if got, err := forge.ParseKind(string(k)); err != nil || got != k {
			t.Errorf("%s: %s, %v", k, got, err)
		}
	}
	if _, err := forge.ParseKind("bitbucket"); err == nil {
		t.Error("bitbucket is taken")
	}
}

// A generic sender signs whatever it sends, and says no more than that something moved.
func TestGeneric(t *testing.T) {
	for name, c := range map[string]struct {
		signature, body string
		good            bool
	}{
		"signed":         {"sha256=" + hex.EncodeToString(mac(secret, "moved")), "moved", true},
		"empty body":     {"sha256=" + hex.EncodeToString(mac(secret, "")), "", true},
		"other body":     {"sha256=" + hex.EncodeToString(mac(secret, "moved")), "moved!", false},
		"other key":      {"sha256=" + hex.EncodeToString(mac("guess", "moved")), "moved", false},
		"no algorithm":   {hex.EncodeToString(mac(secret, "moved")), "moved", false},
		"no signature":   {"", "moved", false},
		"weak algorithm": {"sha1=" + hex.EncodeToString(mac(secret, "moved")), "moved", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			h.Set("X-Signature", c.signature)
			p, err := forge.Parse(forge.Generic, h, []byte(c.body), policy.NewSecret(secret))
			if c.good != (err == nil) || !c.good && !errors.Is(err, forge.ErrSignature) {
				t.Fatalf("%+v, %v", p, err)
			}
			if c.good && (p.Kind != forge.Generic || p.Digest == "" || p.Ref != "" || p.After != "") {
				t.Errorf("%+v", p)
			}
		})
	}
}
