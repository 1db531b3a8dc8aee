package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/sandbox"
	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/gitsource/forge/bare"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// jobs run at once: one machine also has a cluster to carry.
const jobs = 2

// build lets the server build what is pushed to the Git host, if this machine can isolate steps. That it cannot is no
// reason not to deliver what others build.
func (l *Local) build(ctx context.Context, o Options, options *server.Options) error {
	cache := filepath.Join(o.Data, "cache")
	worker := server.Worker{Jobs: jobs, Cache: cache, Tools: filepath.Join(cache, "tools"), AllowUnisolated: o.AllowUnisolated}
	probe, err := sandbox.New(ctx, sandbox.Options{
		Cache: worker.Tools, State: filepath.Join(os.TempDir(), fmt.Sprintf("slipway-probe-%d", os.Getpid())), AllowUnisolated: o.AllowUnisolated,
		Log: o.Log.WithName("sandbox"),
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.NotBuilding = err.Error()
		return nil
	}
	if err := probe.Remove(); err != nil {
		return err
	}
	key := filepath.Join(o.Data, "cosign.key")
	if l.SigningKey, err = signingKey(key); err != nil {
		return err
	}
	options.Build = &server.Build{Local: l.source, Config: server.Config{
		Signing: server.Signing{KeyFile: key}, Worker: worker,
		Registries: []server.RegistryLogin{{Host: l.Registry, Insecure: true}},
	}}
	return nil
}

// source admits the repositories of the Git host in this process, except for the environment repository.
func (l *Local) source(address string) (builder.Repo, bool) {
	u, err := url.Parse(address)
	git, errGit := url.Parse(l.GitURL)
	if err != nil || errGit != nil || u.Host != git.Host || u.Scheme != git.Scheme || address == l.GitURL {
		return builder.Repo{}, false
	}
	name, found := strings.CutSuffix(strings.TrimPrefix(u.Path, "/"), ".git")
	return builder.Repo{Name: name, URL: address}, found && name != "" && !strings.Contains(name, "/")
}

// deliverWithin bounds storing a push: the pusher waits for it.
const deliverWithin = 10 * time.Second

// pushed has a push built.
func (l *Local) pushed(push bare.Push, log logr.Logger) {
	if l.server == nil || push.New == "" || !strings.HasPrefix(push.Ref, "refs/heads/") {
		return
	}
	repo, known := l.source(strings.TrimSuffix(l.GitURL, Repository+".git") + push.Repo + ".git")
	if !known {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), deliverWithin)
	defer cancel()
	if err := l.server.Pushed(ctx, repo, push.Ref, push.New, ""); err != nil {
		log.Error(err, "a push is not built", "repository", push.Repo, "ref", push.Ref)
	}
}

// signingKey makes the key of what is built here the first time, and returns the file of its public half.
func signingKey(file string) (public string, err error) {
	public = file + ".pub"
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return public, err
	}
	private, verifies, err := sigstore.GenerateKey(policy.Secret{})
	if err != nil {
		return "", fmt.Errorf("signing key: %w", err)
	}
	// The private half last: while it is missing, both are made again.
	if err := os.WriteFile(public, verifies, 0o644); err != nil {
		return "", fmt.Errorf("signing key: %w", err)
	}
	if err := os.WriteFile(file, []byte(private.Reveal()), 0o600); err != nil {
		return "", fmt.Errorf("signing key: %w", err)
	}
	return public, nil
}
