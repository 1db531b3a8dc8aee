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
	slipway string // path of the command line
	quiet   bool   // what it prints is not shown
	pushed  time.Time

	source *world.Repository // that shop is built from
	build  world.Build
	key    string // file of the agent's private key
	server *world.Server
	agent  *world.Process

	first, second, bad string // images, NAME@sha256:...
	badSource          gitsource.ObjectID
	badRun             string
	badCommit          gitsource.ObjectID
	reverted           gitsource.ObjectID   // by this commit
	between            []gitsource.ObjectID // unrelated commits after the bad one
}

func (s *story) play(ctx context.Context) error {
	steps := []struct {
		title string
		play  func(context.Context) error
	}{
		{"The agent bootstraps the cluster from Git", s.bootstrap},
		{"A push becomes a signed image, and dev runs it", s.pushToDev},
		{"It goes on to production: a request, merged, rolled out", s.promoteToProduction},
		{"A push that works in dev and crashes in production is taken back through Git", s.badVersion},
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

// prepare builds the command line and a first image, and pushes the environment repo.
func (s *story) prepare(ctx context.Context) (err error) {
	if s.slipway, err = s.w.Binary(ctx, "slipway"); err != nil {
		return err
	}
	if s.first, err = s.w.Sample(ctx, "0", "ready"); err != nil {
		return err
	}
	if s.source, err = s.w.Source(ctx, "shop"); err != nil {
		return err
	}
	s.build, err = s.w.NewBuild(ctx, world.BuildOptions{Sources: []map[string]any{world.SourceOf("shop", s.source)}, Jobs: 2})
	if err != nil {
		return err
	}
	files, err := world.Fleet(ctx, s.first)
	if err != nil {
		return err
	}
	key, enrol, err := s.w.AgentKey(ctx)
	if err != nil {
		return err
	}
	s.key = key
	commit, err := s.w.Commit(ctx, "Start the fleet", append(files, enrol, s.w.Policy(s.build, s.source))...)
	if err != nil {
		return err
	}
	s.t.say("environment repo %s at %s: shop 0, from another CI, in dev and production", s.w.URL, commit.Short())
	s.t.say("images of %s may run only if the server has signed them and says that they come from %s", s.w.Registry.Host()+"/apps", s.source.URL)
	return nil
}

// run runs the command line as a user would, and prints what it prints.
func (s *story) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.slipway, args...)
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+s.w.Cluster.Kubeconfig(), "SLIPWAY_REPO="+s.w.URL, "NO_COLOR=1", "XDG_CACHE_HOME="+filepath.Join(s.w.Dir, "home"),
		"GIT_AUTHOR_NAME=Robin Marsh", "GIT_AUTHOR_EMAIL=robin@shop.example")
	if s.server != nil {
		cmd.Env = append(cmd.Env, "SLIPWAY_SERVER="+s.server.URL, "SLIPWAY_SERVER_CA="+s.server.Trust)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if !s.quiet || err != nil {
		s.t.say("$ slipway %s\n%s%s", strings.Join(short(args), " "), out, stderr.String())
	}
	if err != nil {
		return "", fmt.Errorf("slipway %s: %w", args[0], err)
	}
	return string(out), nil
}

// quietly runs the command line for its answer alone.
func (s *story) quietly(ctx context.Context, args ...string) (string, error) {
	s.quiet = true
	defer func() { s.quiet = false }()
	return s.run(ctx, args...)
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
	for _, process := range []*world.Process{s.serverProcess(), s.agent} {
		if process == nil {
			continue
		}
		content, err := os.ReadFile(process.Log)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(content)), "\n")
		s.t.say("last lines of %s:\n%s", process.Log, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

func (s *story) serverProcess() *world.Process {
	if s.server == nil {
		return nil
	}
	return s.server.Process
}
