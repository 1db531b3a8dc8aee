package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

// Times that a step may take, far above what they need.
const (
	soon   = 90 * time.Second
	patchy = 3 * time.Minute
)

type story struct {
	t       *timeline
	w       *world.World
	agent   *world.Process
	slipway string // path of the command line

	first, second, bad string // images, NAME@sha256:...
	badCommit          gitsource.ObjectID
	between            []gitsource.ObjectID // unrelated commits after the bad one
}

func (s *story) play(ctx context.Context) error {
	steps := []struct {
		title string
		play  func(context.Context) error
	}{
		{"The agent bootstraps the cluster from Git", s.bootstrap},
		{"A new version goes to dev: a commit", s.promoteToDev},
		{"It goes on to production: a request, merged, rolled out", s.promoteToProduction},
		{"A bad version is merged to production, fails, and is taken back through Git", s.badVersion},
		{"Commits that landed in between are still there", s.unrelatedCommits},
		{"A live object is edited by hand", s.handEdit},
		{"What can be asked afterwards", s.ask},
	}
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("preparation: %w", err)
	}
	for i, step := range steps {
		s.t.step(i+1, step.title)
		if err := step.play(ctx); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, step.title, err)
		}
	}
	return nil
}

// prepare builds the images and the command line, and pushes the environment repo.
func (s *story) prepare(ctx context.Context) (err error) {
	if s.slipway, err = s.w.Binary(ctx, "slipway"); err != nil {
		return err
	}
	for _, image := range []struct {
		into               *string
		version, behaviour string
	}{{&s.first, "1", "ready"}, {&s.second, "2", "ready"}, {&s.bad, "3", "never-ready"}} {
		if *image.into, err = s.w.Sample(ctx, image.version, image.behaviour); err != nil {
			return err
		}
	}
	s.t.say("images: shop 1 and 2, and 3 which never answers its probe; only the image knows")
	root, err := world.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	name, digest, _ := strings.Cut(s.first, "@")
	files, err := world.Folder(filepath.Join(root, "e2e", "testdata", "env"), map[string]string{
		"SHOP_IMAGE_NAME": name, "SHOP_IMAGE_DIGEST": digest,
	})
	if err != nil {
		return err
	}
	commit, err := s.w.Commit(ctx, "Start the fleet", files...)
	if err != nil {
		return err
	}
	s.t.say("environment repo %s at %s", s.w.URL, commit.Short())
	return nil
}

// run runs the command line as a user would, and prints what it prints.
func (s *story) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.slipway, args...)
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+s.w.Cluster.Kubeconfig(), "SLIPWAY_REPO="+s.w.URL, "NO_COLOR=1", "XDG_CACHE_HOME="+filepath.Join(s.w.Dir, "home"),
		"GIT_AUTHOR_NAME=Robin Marsh", "GIT_AUTHOR_EMAIL=robin@shop.example")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	s.t.say("$ slipway %s\n%s%s", strings.Join(short(args), " "), out, stderr.String())
	if err != nil {
		return "", fmt.Errorf("slipway %s: %w", args[0], err)
	}
	return string(out), nil
}

// short abbreviates digests, for people.
func short(args []string) []string {
	out := make([]string, 0, len(args))
	for _, arg := range args {
		if at := strings.Index(arg, "@sha256:"); at >= 0 {
			arg = arg[:at+len("@sha256:")+8] + "..."
		}
		out = append(out, arg)
	}
	return out
}

// explain prints what helps when a step failed.
func (s *story) explain(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	if out, err := s.w.Cluster.Kubectl(ctx, "get", "applications.slipway.dev,gitsources.slipway.dev,rollouts.slipway.dev,pods,deployments", "-A"); err == nil {
		s.t.say("what the cluster holds:\n%s", out)
	}
	if out, err := s.w.Cluster.Kubectl(ctx, "get", "applications.slipway.dev", "-A", "-o",
		`jsonpath={range .items[*]}{.metadata.name}{": "}{range .status.conditions[*]}{.type}{"="}{.status}{" "}{.reason}{" "}{.message}{"; "}{end}{"\n"}{end}`); err == nil {
		s.t.say("conditions:\n%s", out)
	}
	if s.agent == nil {
		return
	}
	content, err := os.ReadFile(s.agent.Log)
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	s.t.say("last lines of %s:\n%s", s.agent.Log, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}
