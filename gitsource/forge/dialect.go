package forge

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/policy"
)

// dialect is how one kind of host signs and words its webhooks.
type dialect struct {
	signed   func(header Header, body []byte, secret policy.Secret) bool
	event    func(header Header) string
	push     string // the event of a push
	delivery func(header Header) string
	read     func(body []byte) (Push, error)
}

// dialects are constant.
var dialects = map[Kind]dialect{
	// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries and .../webhook-events-and-payloads#push
	GitHub: {signed: hubSigned, event: field("X-GitHub-Event"), push: "push", delivery: field("X-GitHub-Delivery"), read: readGitHub},
	// https://docs.gitlab.com/user/project/integrations/webhooks/ and .../webhook_events/#push-events
	GitLab: {signed: gitLabSigned, event: field("X-Gitlab-Event"), push: "Push Hook", delivery: gitLabDelivery, read: readGitLab},
	// https://docs.gitea.com/usage/repository/webhooks
	Generic: {
		signed: genericSigned, event: func(Header) string { return "any" }, push: "any", delivery: field("X-Request-Id"),
		read: func([]byte) (Push, error) { return Push{}, nil },
	},
	Gitea: {signed: giteaSigned, event: field("X-Gitea-Event"), push: "push", delivery: field("X-Gitea-Delivery"), read: readGitea},
}

func field(name string) func(Header) string {
	return func(h Header) string { return h.Get(name) }
}

// sum is the HMAC-SHA256 of the parts, one after the other.
func sum(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

// hexSigned compares in constant time. Text that is no hex fits nothing.
func hexSigned(given string, body []byte, secret policy.Secret) bool {
	mac, err := hex.DecodeString(given)
	return err == nil && hmac.Equal(mac, sum([]byte(secret.Reveal()), body))
}

func hubSigned(header Header, body []byte, secret policy.Secret) bool {
	given, ok := strings.CutPrefix(header.Get("X-Hub-Signature-256"), "sha256=")
	return ok && hexSigned(given, body, secret)
}

func giteaSigned(header Header, body []byte, secret policy.Secret) bool {
	if given := header.Get("X-Gitea-Signature"); given != "" {
		return hexSigned(given, body, secret)
	}
	return hubSigned(header, body, secret)
}

func genericSigned(header Header, body []byte, secret policy.Secret) bool {
	given, ok := strings.CutPrefix(header.Get("X-Signature"), "sha256=")
	return ok && hexSigned(given, body, secret)
}

// standardPrefix marks a key of the Standard Webhooks: base64 of the key's bytes follows.
const standardPrefix = "whsec_"

func gitLabSigned(header Header, body []byte, secret policy.Secret) bool {
	encoded, standard := strings.CutPrefix(secret.Reveal(), standardPrefix)
	if !standard {
		// Digests of equal length: comparing the values themselves would tell how long the secret is.
		given, want := sha256.Sum256([]byte(header.Get("X-Gitlab-Token"))), sha256.Sum256([]byte(secret.Reveal()))
		return subtle.ConstantTimeCompare(given[:], want[:]) == 1
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	id, at := header.Get("webhook-id"), header.Get("webhook-timestamp")
	if err != nil || len(key) == 0 || id == "" || at == "" {
		return false
	}
	want := sum(key, []byte(id+"."+at+"."), body)
	fits := false
	// Several while a key is changed for another one.
	for _, given := range strings.Fields(header.Get("webhook-signature")) {
		encoded, v1 := strings.CutPrefix(given, "v1,")
		mac, err := base64.StdEncoding.DecodeString(encoded)
		fits = fits || v1 && err == nil && hmac.Equal(mac, want)
	}
	return fits
}

// gitLabDelivery prefers the name that newer signatures cover; the older ones are the same on each retry, too.
func gitLabDelivery(header Header) string {
	for _, name := range []string{"webhook-id", "Idempotency-Key", "X-Gitlab-Event-UUID"} {
		if id := header.Get(name); id != "" {
			return id
		}
	}
	return ""
}

func readGitHub(body []byte) (Push, error) {
	var m struct {
		Ref, Before, After string
		Repository         struct {
			FullName string `json:"full_name"`
			CloneURL string `json:"clone_url"`
			SSHURL   string `json:"ssh_url"`
		}
		Pusher struct{ Name string }
	}
	if err := decode(body, &m); err != nil {
		return Push{}, err
	}
	return message{
		ref: m.Ref, before: m.Before, after: m.After, login: m.Pusher.Name,
		clone: m.Repository.CloneURL, ssh: m.Repository.SSHURL, name: m.Repository.FullName,
	}.push()
}

func readGitea(body []byte) (Push, error) {
	var m struct {
		Ref, Before, After string
		Repository         struct {
			FullName string `json:"full_name"`
			CloneURL string `json:"clone_url"`
			SSHURL   string `json:"ssh_url"`
		}
		Pusher struct{ Login string }
	}
	if err := decode(body, &m); err != nil {
		return Push{}, err
	}
	return message{
		ref: m.Ref, before: m.Before, after: m.After, login: m.Pusher.Login,
		clone: m.Repository.CloneURL, ssh: m.Repository.SSHURL, name: m.Repository.FullName,
	}.push()
}

func readGitLab(body []byte) (Push, error) {
	var m struct {
		Kind               string `json:"object_kind"`
		Ref, Before, After string
		User               string `json:"user_username"`
		Project            struct {
			Path string `json:"path_with_namespace"`
			HTTP string `json:"git_http_url"`
			SSH  string `json:"git_ssh_url"`
		}
	}
	if err := decode(body, &m); err != nil {
		return Push{}, err
	}
	if m.Kind != "push" {
		return Push{}, fmt.Errorf("webhook: body of kind %.40q: %w", m.Kind, ErrUnknownEvent)
	}
	return message{
		ref: m.Ref, before: m.Before, after: m.After, login: m.User,
		clone: m.Project.HTTP, ssh: m.Project.SSH, name: m.Project.Path,
	}.push()
}
