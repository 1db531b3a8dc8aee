// Package sigstore signs images, attests how they were made, and verifies both, in the formats of Sigstore and in-toto.
//
// A Signer attaches three statements to an image: the SBOM of the Go program in it, the SLSA provenance of its build, and
// last the signature, so that an image whose signing was interrupted counts as unsigned. Each is a Sigstore bundle (a
// DSSE envelope) in an OCI manifest of its own that refers to the image, so that cosign finds it and two writers never
// overwrite each other. A Verifier holds an image against a policy.Requirement, with public keys and the registry alone:
// no transparency log, no clock, no other service. It also reads the older format of cosign, which keeps signatures
// behind tags.
//
// Nothing here opens a gate by omission: what cannot be read is ErrUnknown, which is neither a yes nor a no.
package sigstore

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/slipway-cd/slipway/policy"
)

// Types of statements that are written and read here.
const (
	PredicateSignature  = "https://sigstore.dev/cosign/sign/v1"
	PredicateProvenance = "https://slsa.dev/provenance/v1"
	PredicateSBOM       = "https://spdx.dev/Document"
)

// Login to a registry; the zero value is anonymous.
type Login struct {
	Username string
	Password policy.Secret
}

// Logins tells how to log in to the registry at host, "ghcr.io" or "127.0.0.1:5000". Nil is anonymous everywhere.
type Logins func(host string) (Login, error)

// LoginsOf looks hosts up in a map; others are anonymous.
func LoginsOf(known map[string]Login) Logins {
	return func(host string) (Login, error) { return known[host], nil }
}

// LoginsFile looks hosts up in a file as `docker login` writes it, anew each time, so that a rotated Secret counts at
// once. A file that is not there is anonymous everywhere. Credential helpers are refused: nothing is executed.
func LoginsFile(name string) Logins {
	return func(host string) (Login, error) {
		content, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			return Login{}, nil
		}
		if err != nil {
			return Login{}, fmt.Errorf("registry logins: %w", err)
		}
		login, err := parseLogins(content, host)
		if err != nil {
			return Login{}, fmt.Errorf("registry logins %s: %w", name, err)
		}
		return login, nil
	}
}

// parseLogins never repeats content in an error: it is secret.
func parseLogins(content []byte, host string) (Login, error) {
	var file struct {
		Auths map[string]struct{ Username, Password, Auth string }
		Store string            `json:"credsStore"`
		Help  map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal(content, &file); err != nil {
		return Login{}, fmt.Errorf(`not a Docker configuration (want {"auths": {"HOST": {"auth": "..."}}})`)
	}
	if file.Store != "" || len(file.Help) > 0 {
		return Login{}, fmt.Errorf("credsStore and credHelpers would run programs (write the logins under auths)")
	}
	for key, entry := range file.Auths {
		if hostOf(key) != hostOf(host) {
			continue
		}
		if entry.Auth == "" {
			return Login{Username: entry.Username, Password: policy.NewSecret(entry.Password)}, nil
		}
		plain, err := base64.StdEncoding.DecodeString(entry.Auth)
		username, password, found := strings.Cut(string(plain), ":")
		if err != nil || !found {
			return Login{}, fmt.Errorf("auths %q: auth is not the base64 form of USERNAME:PASSWORD", key)
		}
		return Login{Username: username, Password: policy.NewSecret(strings.TrimRight(password, "\x00"))}, nil
	}
	return Login{}, nil
}

// hostOf reads the keys of a Docker configuration, of which that of Docker Hub is a URL.
func hostOf(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	if host == "index.docker.io" {
		return "docker.io"
	}
	return host
}

// Resolve makes Logins a keychain of the registry client.
func (l Logins) Resolve(resource authn.Resource) (authn.Authenticator, error) {
	if l == nil {
		return authn.Anonymous, nil
	}
	login, err := l(resource.RegistryStr())
	if err != nil || login.Username == "" && login.Password.Empty() {
		return authn.Anonymous, err
	}
	return &authn.Basic{Username: login.Username, Password: login.Password.Reveal()}, nil
}

// transport bounds how long a registry may be silent; what it sends is bounded where it is read.
func transport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	t.ResponseHeaderTimeout = 20 * time.Second
	t.MaxIdleConnsPerHost = 4
	return t
}
