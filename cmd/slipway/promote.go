package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

func promoteCommand(g *globals) *cobra.Command {
	var images []string
	var env, from, reason, source, run, trace, host string
	var merge, lift bool
	cmd := &cobra.Command{
		Use:   "promote APP --env ENVIRONMENT",
		Short: "Bring an image into an environment: a commit, or a request",
		Long: `Bring an image into an environment: a commit on the followed branch, or, where the
environment asks for it, a request: the branch promote/ENVIRONMENT/APP that becomes
a promotion when it is merged. Without --image the images of the environment before
are taken over.

With --host the request is a pull request of the Git host, in your name, with what it
changes; --merge then asks the host, whose rules (approvals, checks) hold (exit code 3
while one is not met).

A held image is refused (exit code 3) until a person lifts the hold; so is every
promotion into a frozen environment.`,
		Example: `  slipway promote shop --env dev --image registry.example/shop@sha256:...
  slipway promote shop --env production              # what dev has; opens a request
  slipway promote shop --env production --merge      # merges the open request; opens one if there is none`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			request := promoter.Request{
				App: given[0], Environment: env, From: from, Reason: reason, Lift: lift, Source: source, Run: run, Trace: trace,
			}
			for _, reference := range images {
				image, err := parseImage(reference)
				if err != nil {
					return usageError{err}
				}
				request.Images = append(request.Images, image)
			}
			return g.promote(cmd.Context(), request, cmp.Or(host, g.env("SLIPWAY_HOST")), merge)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&env, "env", "e", "", "environment of slipway.yaml (required)")
	flags.StringArrayVar(&images, "image", nil, "[ENTRY=]NAME@sha256:DIGEST; may be repeated")
	flags.StringVar(&from, "from", "", "environment whose images are taken over (default: the one before)")
	flags.BoolVar(&merge, "merge", false, "merge the request at once")
	flags.BoolVar(&lift, "lift-hold", false, "promote an image although it is held, and remove the hold")
	flags.StringVarP(&reason, "message", "m", "", "why, for the commit message")
	flags.StringVar(&source, "source", "", "URL@COMMIT that the image was built from, for the trailers")
	flags.StringVar(&run, "run", "", "the run that built it, for the trailers")
	flags.StringVar(&trace, "trace", "", "trace id, for the trailers")
	flags.StringVar(&host, "host", "", "kind of the Git host, for its pull requests: gitea (default: SLIPWAY_HOST, else requests are branches)")
	_ = cmd.MarkFlagRequired("env")
	return cmd
}

func (g *globals) promote(ctx context.Context, request promoter.Request, host string, merge bool) error {
	author, err := g.person(ctx)
	if err != nil {
		return err
	}
	request.Author = author
	p, end, err := g.requester(ctx, host)
	if err != nil {
		return err
	}
	defer end()
	if merge && len(request.Images) == 0 && request.From == "" && !request.Lift {
		// What is merged is what people have looked at, also when the environment before has gone on.
		result, err := p.Merge(ctx, request.Environment, request.App, author, request.Reason)
		if err == nil {
			return g.promoted(request, result)
		}
		if !errors.Is(err, gitsource.ErrNotFound) {
			return err
		}
	}
	result, err := p.Promote(ctx, request)
	if err != nil {
		return err
	}
	if merge && !result.Direct && !result.NoChange || merge && result.NoChange && result.Branch != g.branch {
		if result, err = p.Merge(ctx, request.Environment, request.App, author, request.Reason); err != nil {
			return err
		}
	}
	return g.promoted(request, result)
}

func (g *globals) promoted(request promoter.Request, result promoter.Result) error {
	return g.written(result, func(w io.Writer) {
		if !result.Direct {
			fmt.Fprintf(w, "request for %s in %s: branch %s at %s\n", request.App, request.Environment, result.Branch, result.Commit.Short())
			if result.URL != "" {
				fmt.Fprintf(w, "pull request: %s\n", result.URL)
			}
			fmt.Fprintf(w, "merge it with: slipway promote %s --env %s --merge\n", request.App, request.Environment)
			return
		}
		fmt.Fprintf(w, "%s is promoted to %s by commit %s on %s\n", request.App, request.Environment, result.Commit.Short(), result.Branch)
	})
}

// parseImage reads NAME@sha256:DIGEST or NAME:TAG, in front of it perhaps ENTRY=
// where the kustomization calls the image differently.
func parseImage(reference string) (edit.Image, error) {
	entry, rest, named := strings.Cut(reference, "=")
	if !named {
		rest = reference
	}
	image := edit.Image{}
	name, digest, found := strings.Cut(rest, "@")
	if found {
		if err := environment.CheckDigest(digest); err != nil {
			return image, fmt.Errorf("--image %s: %w", reference, err)
		}
		image.Digest = digest
	} else if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		name, image.NewTag = name[:at], name[at+1:]
	}
	if name == "" || image.Digest == "" && image.NewTag == "" {
		return image, fmt.Errorf("--image %s: want NAME@sha256:DIGEST (a digest never changes what it names) or NAME:TAG", reference)
	}
	if image.Name = name; named {
		image.Name, image.NewName = entry, name
	}
	return image, nil
}

// written reports what a command did to the environment repo.
func (g *globals) written(result promoter.Result, human func(io.Writer)) error {
	return g.print(map[string]any{
		"commit": result.Commit, "branch": result.Branch, "direct": result.Direct, "changed": !result.NoChange, "url": result.URL,
	}, func(w io.Writer) {
		if result.NoChange {
			fmt.Fprintf(w, "nothing to do: %s at %s says so already\n", result.Branch, result.Commit.Short())
			return
		}
		human(w)
	})
}
