package oci

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/google"

	"github.com/slipway-cd/slipway/policy"
)

// Provider is a cloud that gives short-lived tokens to what runs in it.
type Provider string

// The providers. Why there are no more, see adr/0001.
const (
	Generic Provider = ""    // none: a pull secret, or anonymous
	Google  Provider = "gcp" // Artifact Registry and Container Registry, by workload identity
)

// serves reports whether a token of p may be sent to host: what a cloud trusts us with must not reach others.
func (p Provider) serves(host string) bool {
	switch p {
	case Generic:
		return true
	case Google:
		return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, "-docker.pkg.dev")
	}
	return false
}

// googleTokens asks the environment for tokens, as workload identity puts them there. Neither gcloud nor any other program
// is started, and a failure is not remembered: the metadata server of a node may come up after the agent.
type googleTokens struct {
	mu     sync.Mutex
	source authn.Authenticator // renews its token when it has expired
}

func (g *googleTokens) login(ctx context.Context) (Login, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.source == nil {
		source, err := google.NewEnvAuthenticator(context.WithoutCancel(ctx)) // renewals outlive this request
		if err != nil {
			return Login{}, fmt.Errorf("provider gcp: no credentials of this environment (bind a Google service account to the agent's): %w", err)
		}
		g.source = source
	}
	config, err := g.source.Authorization()
	if err != nil {
		return Login{}, fmt.Errorf("provider gcp: no token: %w", err)
	}
	return Login{Username: config.Username, Password: policy.NewSecret(config.Password)}, nil
}
