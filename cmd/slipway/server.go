package main

import (
	"os"
	"strings"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/console/client"
	"github.com/slipway-cd/slipway/policy"
)

// serverFlags are those of commands that ask a server.
type serverFlags struct{ url, ca, tokenFile string }

// flagSet is what they are added to.
type flagSet interface {
	StringVar(into *string, name, value, usage string)
}

func (f *serverFlags) add(set flagSet) {
	set.StringVar(&f.url, "server", "", "URL of the server (default: SLIPWAY_SERVER)")
	set.StringVar(&f.ca, "server-ca", "", "PEM file with the authority that signed its certificate (default: SLIPWAY_SERVER_CA)")
	set.StringVar(&f.tokenFile, "token-file", "", "file with the token (default: the token itself in SLIPWAY_TOKEN)")
}

// optional returns nil if no server is named.
func (f *serverFlags) optional(g *globals) (*client.Client, error) {
	url, ca := f.url, f.ca
	if url == "" {
		url = g.env("SLIPWAY_SERVER")
	}
	if url == "" {
		return nil, nil
	}
	if ca == "" {
		ca = g.env("SLIPWAY_SERVER_CA")
	}
	o := client.Options{URL: url, Token: policy.NewSecret(g.env("SLIPWAY_TOKEN")), Agent: "slipway/" + wire.Version}
	if f.tokenFile != "" {
		content, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return nil, usage("--token-file: %w", err)
		}
		o.Token = policy.NewSecret(strings.TrimSpace(string(content)))
	}
	if ca != "" {
		content, err := os.ReadFile(ca)
		if err != nil {
			return nil, usage("--server-ca: %w", err)
		}
		o.CA = content
	}
	c, err := client.New(o)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// client returns one that asks the server that is named.
func (f *serverFlags) client(g *globals) (*client.Client, error) {
	c, err := f.optional(g)
	if err == nil && c == nil {
		err = usage("the server is not known: give --server URL or set SLIPWAY_SERVER ('slipway up' prints its own)")
	}
	return c, err
}
