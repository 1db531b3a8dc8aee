package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/promoter"
)

// repository is what the Git commands work on.
type repository interface {
	promoter.Repo
	Refs(ctx context.Context) (map[string]gitsource.ObjectID, error)
}

// open opens the environment repo with the user's own credentials.
func (g *globals) open(ctx context.Context) (repository, string, error) {
	target, err := g.repoURL(ctx)
	if err != nil {
		return nil, "", err
	}
	username, password := g.credentials(ctx, target)
	store, err := wire.OpenRepository(ctx, target, username, password, cacheDir())
	return store, target, err
}

func (g *globals) promoter(ctx context.Context) (*promoter.Promoter, error) {
	repo, target, err := g.open(ctx)
	if err != nil {
		return nil, err
	}
	return promoter.New(promoter.Options{Repo: repo, Branch: g.branch, URL: target})
}

// repoURL finds the environment repo: as told, else the folder that the user stands in, else what the cluster follows.
func (g *globals) repoURL(ctx context.Context) (string, error) {
	if g.repo != "" {
		return g.repo, nil
	}
	if fromEnv := g.env("SLIPWAY_REPO"); fromEnv != "" {
		return fromEnv, nil
	}
	if origin := gitConfig(ctx, "remote.origin.url"); origin != "" {
		if _, err := os.Stat("slipway.yaml"); err == nil {
			return origin, nil
		}
	}
	if kube, _, err := g.kube(); err == nil {
		var source v1alpha1.GitSource
		if kube.Get(ctx, client.ObjectKey{Namespace: g.namespace, Name: install.SourceName}, &source) == nil {
			return source.Spec.URL, nil
		}
	}
	return "", usage("the environment repo is not known: give --repo URL, set SLIPWAY_REPO, or work in a clone of it")
}

// credentials asks the environment, then git's own credential helpers. Neither is ever printed.
func (g *globals) credentials(ctx context.Context, target string) (string, policy.Secret) {
	if password := g.env("SLIPWAY_GIT_PASSWORD"); password != "" {
		username := g.env("SLIPWAY_GIT_USERNAME")
		if username == "" {
			username = "git"
		}
		return username, policy.NewSecret(password)
	}
	parsed, err := url.Parse(target)
	if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" {
		return "", policy.Secret{}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "credential", "fill")
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=")
	cmd.Stdin = strings.NewReader("url=" + target + "\n\n")
	out, err := cmd.Output()
	if err != nil {
		return "", policy.Secret{} // no helper knows it: the host may let everybody in
	}
	var username string
	var password policy.Secret
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), "=")
		switch key {
		case "username":
			username = value
		case "password":
			password = policy.NewSecret(value)
		}
	}
	return username, password
}

// person is who the commits are by, as git would have it.
func (g *globals) person(ctx context.Context) (gitsource.Person, error) {
	p := gitsource.Person{Name: g.env("GIT_AUTHOR_NAME"), Email: g.env("GIT_AUTHOR_EMAIL"), When: time.Now()}
	if p.Name == "" {
		p.Name = gitConfig(ctx, "user.name")
	}
	if p.Email == "" {
		p.Email = gitConfig(ctx, "user.email")
	}
	if p.Name == "" || p.Email == "" {
		return p, usage("git does not know who you are: git config --global user.name NAME, and user.email ADDRESS")
	}
	return p, nil
}

func gitConfig(ctx context.Context, key string) string {
	out, err := exec.CommandContext(ctx, "git", "config", "--get", key).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// commitID completes an abbreviated commit id from the history of the followed branch.
func (g *globals) commitID(ctx context.Context, repo repository, short string) (gitsource.ObjectID, error) {
	if id, err := gitsource.ParseObjectID(short); err == nil {
		return id, nil
	}
	if len(short) < 7 || strings.Trim(strings.ToLower(short), "0123456789abcdef") != "" {
		return "", usage("commit %q: want at least 7 hex characters of its id", short)
	}
	tip, err := repo.Fetch(ctx, "refs/heads/"+g.branch)
	if err != nil {
		return "", err
	}
	const searched = 5000
	commits, err := repo.Log(ctx, tip.ID, searched)
	if err != nil {
		return "", err
	}
	var found gitsource.ObjectID
	for _, commit := range commits {
		if strings.HasPrefix(string(commit.ID), strings.ToLower(short)) {
			if found != "" {
				return "", usage("commit %s: both %s and %s begin so; give more of it", short, found, commit.ID)
			}
			found = commit.ID
		}
	}
	if found == "" {
		return "", fmt.Errorf("commit %s: %w among the newest %d of %s", short, gitsource.ErrNotFound, searched, g.branch)
	}
	return found, nil
}
