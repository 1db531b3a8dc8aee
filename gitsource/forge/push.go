package forge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
)

// Errors of Parse on which callers branch.
var (
	// ErrSignature says that the message does not prove that it comes from the host. Nothing of its body was read.
	ErrSignature = errors.New("the signature is missing or wrong")
	// ErrUnknownEvent says that the message is genuine but moves no branch to a commit: a ping, a tag, a deleted branch.
	ErrUnknownEvent = errors.New("without effect")
	// ErrMalformed says that the message is genuine but not what such a host sends.
	ErrMalformed = errors.New("malformed webhook")
)

// Kind is a kind of Git host, which decides how webhooks are signed and worded. The zero value is none.
type Kind string

// The kinds.
const (
	GitHub Kind = "github"
	GitLab Kind = "gitlab"
	Gitea  Kind = "gitea" // and Forgejo
	// Generic is whoever signs a body of any kind with X-Signature. It says that something moved, not what.
	Generic Kind = "generic"
)

// ParseKind checks that s is a kind.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case GitHub, GitLab, Gitea, Generic:
		return k, nil
	}
	return "", fmt.Errorf("kind of Git host %q: unknown (one of github, gitlab, gitea, generic)", s)
}

// Push is a branch that now is at another commit. Of Generic only Kind, Hook, Delivery and Digest are known.
type Push struct {
	Kind Kind
	Hook string // name under which it came in; empty from Parse
	// Delivery is what the host calls this message. Only GitLab's newer signature covers it, so it is good for logs, never
	// for telling whether a message is a repeated one.
	Delivery string
	// Digest is the SHA-256 of the body in hex. The signature covers the body, so a replay has the same Digest, and it
	// differs between two pushes of the same commit to the same branch, because bodies name the time.
	Digest   string
	CloneURL string             // over HTTP, without credentials
	SSHURL   string             // as the host spells it; may be empty
	FullName string             // "fleet/production"
	Ref      string             // full name, always "refs/heads/..."
	Before   gitsource.ObjectID // empty for a new branch
	After    gitsource.ObjectID // never empty
	Pusher   string             // login
}

// Header is the part of http.Header that Parse needs.
type Header interface{ Get(name string) string }

// Parse reads a push webhook. It looks into the body only when the signature is right; what it returns about a body with a
// wrong one is ErrSignature, whatever the body holds. An empty secret fits nothing.
//
// Of GitHub, X-Hub-Signature-256 is required; of Gitea, X-Gitea-Signature or X-Hub-Signature-256. GitLab signs with secrets
// that begin with "whsec_" (webhook-signature of the Standard Webhooks); with any other secret it sends the secret itself
// as X-Gitlab-Token. Which of the two is wanted follows from the secret, never from the message, so nobody can choose the
// weaker one. Generic is an HMAC-SHA256 of the body in hex, behind "sha256=", in X-Signature. The time in GitLab's signature is not judged: a replay changes nothing at any time.
func Parse(kind Kind, header Header, body []byte, secret policy.Secret) (Push, error) {
	host, known := dialects[kind]
	if !known || secret.Empty() || !host.signed(header, body, secret) {
		return Push{}, fmt.Errorf("webhook: %w", ErrSignature)
	}
	// Which event it is stands in a header, which is not signed. Whatever it says, the body must look like a push.
	if event := host.event(header); event != host.push {
		return Push{}, fmt.Errorf("webhook: event %.40q: %w", event, ErrUnknownEvent)
	}
	if media, _, err := mime.ParseMediaType(header.Get("Content-Type")); kind != Generic && (err != nil || media != "application/json") {
		return Push{}, fmt.Errorf("webhook: content type %.60q: %w (set the hook's content type to application/json)", header.Get("Content-Type"), ErrMalformed)
	}
	p, err := host.read(body)
	if err != nil {
		return Push{}, err
	}
	sum := sha256.Sum256(body)
	p.Kind, p.Delivery, p.Digest = kind, printable(host.delivery(header)), hex.EncodeToString(sum[:])
	return p, nil
}

// message is a push as the body says it, before anything of it is believed.
type message struct {
	ref, before, after      string
	clone, ssh, name, login string
}

func (m message) push() (Push, error) {
	branch, isBranch := strings.CutPrefix(m.ref, "refs/heads/")
	if !isBranch {
		if tag, isTag := strings.CutPrefix(m.ref, "refs/tags/"); isTag {
			return Push{}, fmt.Errorf("webhook: tag %.80q: %w", tag, ErrUnknownEvent)
		}
		return Push{}, fmt.Errorf("webhook: ref %.80q: %w: want a full name", m.ref, ErrMalformed)
	}
	if !validBranch(branch) {
		return Push{}, fmt.Errorf("webhook: ref %.80q: %w: no name of a branch", m.ref, ErrMalformed)
	}
	before, err := objectID("before", m.before)
	if err != nil {
		return Push{}, err
	}
	after, err := objectID("after", m.after)
	if err != nil {
		return Push{}, err
	}
	if after == "" {
		return Push{}, fmt.Errorf("webhook: branch %.80q is deleted: %w", branch, ErrUnknownEvent)
	}
	clone, err := cloneURL(m.clone)
	if err != nil {
		return Push{}, err
	}
	if m.name == "" || printable(m.name) != m.name {
		return Push{}, fmt.Errorf("webhook: repository %.80q: %w: want OWNER/NAME", m.name, ErrMalformed)
	}
	return Push{
		Ref: m.ref, Before: before, After: after, CloneURL: clone, SSHURL: printable(m.ssh), FullName: m.name, Pusher: printable(m.login),
	}, nil
}

// objectID reads an id of which all zeros stand for "not there".
func objectID(field, s string) (gitsource.ObjectID, error) {
	id, err := gitsource.ParseObjectID(s)
	if err != nil {
		return "", fmt.Errorf("webhook: %s: %w: %w", field, ErrMalformed, err)
	}
	if strings.Trim(s, "0") == "" {
		return "", nil
	}
	return id, nil
}

// cloneURL accepts an absolute HTTP URL and drops what might be credentials.
func cloneURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path == "" || printable(s) != s {
		return "", fmt.Errorf("webhook: URL of the repository: %w: want http or https", ErrMalformed)
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String(), nil
}

// validBranch holds the rules of git check-ref-format that matter to who passes the name on.
func validBranch(s string) bool {
	if s == "" || len(s) > 240 || strings.HasPrefix(s, "-") || strings.HasSuffix(s, ".") || printable(s) != s ||
		strings.ContainsAny(s, " ~^:?*[\\") || strings.Contains(s, "..") || strings.Contains(s, "@{") {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// printable drops control characters and cuts what nobody would write, for what ends up in logs and records.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return s[:min(len(s), 512)]
}

// decode reads one JSON value and nothing behind it.
func decode(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("webhook: body: %w: %w", ErrMalformed, err)
	}
	if d.More() {
		return fmt.Errorf("webhook: body: %w: more than one JSON value", ErrMalformed)
	}
	return nil
}
