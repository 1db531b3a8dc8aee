package oci

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/slipway-cd/slipway/policy"
)

// Login to a registry; the zero value is anonymous.
type Login struct {
	Username string
	Password policy.Secret
}

// Logins are the logins of a pull secret. The zero value is anonymous everywhere.
type Logins struct {
	known []known
}

// known is the login for what begins with a prefix: HOST, or HOST/PATH.
type known struct {
	prefix string
	login  Login
}

// LoginOf is a login for everything at a host, HOST or HOST:PORT.
func LoginOf(host string, login Login) Logins {
	return Logins{[]known{{canonical(host), login}}}
}

// ParseLogins reads a Docker configuration, as `docker login` and Secrets of type kubernetes.io/dockerconfigjson hold
// it. Programs that know passwords are refused: nothing is executed. An error never repeats the content.
func ParseLogins(content []byte) (Logins, error) {
	var file struct {
		Auths map[string]struct{ Username, Password, Auth string }
		Store string            `json:"credsStore"`
		Help  map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal(content, &file); err != nil {
		return Logins{}, errors.New(`not a Docker configuration (want {"auths": {"HOST": {"auth": "..."}}})`)
	}
	if file.Store != "" || len(file.Help) > 0 {
		return Logins{}, errors.New("credsStore and credHelpers would run programs (write the logins under auths)")
	}
	var logins Logins
	for _, key := range slices.Sorted(maps.Keys(file.Auths)) {
		entry := file.Auths[key]
		login := Login{Username: entry.Username, Password: policy.NewSecret(entry.Password)}
		if entry.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(entry.Auth)
			username, password, found := strings.Cut(string(plain), ":")
			if err != nil || !found {
				return Logins{}, fmt.Errorf("auths %q: auth is not the base64 form of USERNAME:PASSWORD", brief(key))
			}
			login = Login{Username: username, Password: policy.NewSecret(strings.TrimRight(password, "\x00"))}
		}
		logins.known = append(logins.known, known{canonical(key), login})
	}
	return logins, nil
}

// canonical reads the keys of a Docker configuration, of which some are URLs.
func canonical(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, rest, _ := strings.Cut(strings.TrimRight(key, "/"), "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if rest == "" || rest == "v1" || rest == "v2" { // https://index.docker.io/v1/
		return host
	}
	return host + "/" + rest
}

// For returns the login with the longest prefix of a repository, HOST/PATH, or of a host; the zero Login if there is none.
func (l Logins) For(repository string) Login {
	repository = canonical(repository)
	best := known{}
	for _, k := range l.known {
		if (repository == k.prefix || strings.HasPrefix(repository, k.prefix+"/")) && len(k.prefix) >= len(best.prefix) {
			best = k
		}
	}
	return best.login
}

// Login returns what the registry is asked with: the Logins of the source, else a token of its provider, else the login
// that the Store has for all sources.
func (a *Artifact) Login(ctx context.Context) (Login, error) {
	repository := strings.TrimPrefix(strings.TrimPrefix(a.place(), "oci://"), "https://")
	if login := a.source.Logins.For(repository); login != (Login{}) {
		return login, nil
	}
	if a.source.Provider != Generic {
		return a.store.tokens.login(ctx)
	}
	if a.store.logins == nil {
		return Login{}, nil
	}
	logins, err := a.store.logins()
	return logins.For(repository), err
}

// Resolve makes an Artifact a keychain of the registry client.
func (a *Artifact) Resolve(resource authn.Resource) (authn.Authenticator, error) {
	return a.ResolveContext(context.Background(), resource)
}

// ResolveContext implements authn.ContextKeychain.
func (a *Artifact) ResolveContext(ctx context.Context, _ authn.Resource) (authn.Authenticator, error) {
	login, err := a.Login(ctx)
	if err != nil || login == (Login{}) {
		return authn.Anonymous, err
	}
	return &authn.Basic{Username: login.Username, Password: login.Password.Reveal()}, nil
}
