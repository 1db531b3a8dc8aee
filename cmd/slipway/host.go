package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/cmd/internal/wire/githost"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
)

// requester returns what asks for promotions as the user, by pull requests where the host has them, and what to call when it
// is not needed any more.
func (g *globals) requester(ctx context.Context, kind string) (_ *promoter.Promoter, done func(), err error) {
	repo, target, err := g.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	options := promoter.Options{Repo: repo, Branch: g.branch, URL: target}
	done = func() {}
	if kind != "" {
		username, password := g.credentials(ctx, target)
		host, err := githost.New(githost.Options{Kind: kind, URL: target, Branch: g.branch, Username: username, Token: password})
		if err != nil {
			return nil, nil, usageError{fmt.Errorf("--host: %w", err)}
		}
		diff, err := wire.NewRenderedDiff(cacheDir(), prometheus.NewRegistry())
		if err != nil {
			return nil, nil, err
		}
		done = func() { _ = diff.Close() } // its children end with this process at the latest
		options.Requests, options.Merger, options.Diff, options.Sources = host, host, diff, neighbours{g, target}
	}
	p, err := promoter.New(options)
	return p, done, err
}

// neighbours are the repositories on the host of the environment repo. Where sources are is written in commit messages,
// which others write: no other host is called because one of them says so.
type neighbours struct {
	g    *globals
	home string
}

func (n neighbours) History(ctx context.Context, target string) (promoter.History, error) {
	home, err := url.Parse(n.home)
	if err != nil {
		return nil, err
	}
	there, err := url.Parse(target)
	if err != nil || there.Host != home.Host || there.Scheme != home.Scheme {
		return nil, fmt.Errorf("source %s: %w on the host of the environment repo", target, gitsource.ErrNotFound)
	}
	username, password := n.g.credentials(ctx, target)
	store, err := wire.OpenRepository(ctx, target, username, password, cacheDir())
	if err != nil {
		return nil, err
	}
	return store, nil
}
