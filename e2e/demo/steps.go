package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
)

func (s *story) bootstrap(ctx context.Context) error {
	if err := s.w.Install(ctx); err != nil {
		return err
	}
	s.t.say("installed: CRDs, the agent's rights, a GitSource and the root Application %s", world.ClusterName)
	var err error
	if s.server, err = s.w.StartServer(ctx, world.ServerOptions{Config: s.build.Config}); err != nil {
		return err
	}
	s.t.say("slipway-server at %s: builds %s, promotes, and pushes reverts", s.server.URL, s.source.URL)
	if s.agent, err = s.w.StartAgent(ctx, world.AgentOptions{Args: []string{"--server", s.server.URL, "--server-ca", s.server.Trust, "--key", s.key}}); err != nil {
		return err
	}
	s.t.say("slipway-agent runs as user %s; it may read Git, and asks the server for reverts", world.AgentUser)
	for _, app := range []string{world.ClusterName, "namespaces", "hello", "shop-dev", "shop-production"} {
		if err := s.w.WaitReady(ctx, patchy, "", app); err != nil {
			return err
		}
		s.t.say("application %s is applied and healthy", app)
	}
	return errors.Join(s.w.Deployment(ctx, "shop-dev", "shop", s.first), s.w.Deployment(ctx, "shop-production", "shop", s.first))
}

func (s *story) pushToDev(ctx context.Context) error {
	files, err := s.w.ShopSource(ctx)
	if err != nil {
		return err
	}
	pushed, err := s.push(ctx, "Begin the shop", files...)
	if err != nil {
		return err
	}
	run, err := s.runOf(ctx, pushed)
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "logs", run, "--follow"); err != nil {
		return err
	}
	change, err := s.toDev(ctx, pushed)
	if err != nil {
		return err
	}
	s.second = change.Image
	s.t.say("dev runs shop 1; production still runs shop 0")
	return s.w.Deployment(ctx, "shop-production", "shop", s.first)
}

// push commits to the repository that shop is built from.
func (s *story) push(ctx context.Context, message string, changes ...gitsource.Change) (gitsource.ObjectID, error) {
	id, err := s.source.Commit(ctx, message, changes...)
	if err != nil {
		return "", err
	}
	s.pushed = time.Now()
	s.t.say("$ git push %s\n%s %s: %s", s.source.URL, id.Short(), world.Person().Name, message)
	return id, nil
}

// runOf waits for the run of a source commit.
func (s *story) runOf(ctx context.Context, pushed gitsource.ObjectID) (string, error) {
	var id string
	err := world.Eventually(ctx, soon, func() error {
		out, err := s.quietly(ctx, "runs", "--commit", string(pushed), "-o", "json")
		if err != nil {
			return err
		}
		var runs []builder.Run
		if err := json.Unmarshal([]byte(out), &runs); err != nil {
			return err
		}
		if len(runs) != 1 {
			return fmt.Errorf("%d runs of %s", len(runs), pushed.Short())
		}
		id = runs[0].ID
		return nil
	})
	return id, err
}

// toDev waits until what was pushed is built, signed, promoted to dev and runs there.
func (s *story) toDev(ctx context.Context, pushed gitsource.ObjectID) (trailer.Change, error) {
	var change trailer.Change
	var promotion gitsource.ObjectID
	err := world.Eventually(ctx, patchy, func() error {
		commits, err := s.w.Log(ctx, 20)
		if err != nil {
			return err
		}
		for _, commit := range commits {
			for _, c := range trailer.Parse(commit.Message).Changes {
				if strings.HasSuffix(c.Source, "@"+string(pushed)) && c.Environment == "dev" {
					change, promotion = c, commit.ID
					return nil
				}
			}
		}
		return fmt.Errorf("nothing is promoted that was built from %s", pushed.Short())
	})
	if err != nil {
		return change, err
	}
	s.t.say("run %s: tested, built as %s, signed, promoted to dev by %s, %.1f s after the push", change.Run, strings.Join(short([]string{change.Image}), ""), promotion.Short(), time.Since(s.pushed).Seconds())
	return change, s.arrived(ctx, "shop-dev", promotion, change.Image)
}

func (s *story) promoteToProduction(ctx context.Context) error {
	if _, err := s.run(ctx, "promote", "shop", "--env", "production"); err != nil {
		return err
	}
	branches, err := s.w.Branches(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(branches, "promote/production/shop") {
		return fmt.Errorf("there is no branch promote/production/shop, but %v", branches)
	}
	s.t.say("the request is the branch promote/production/shop; nothing runs yet")
	if _, err := s.run(ctx, "promote", "shop", "--env", "production", "--merge"); err != nil {
		return err
	}
	tip, err := s.w.Tip(ctx)
	if err != nil {
		return err
	}
	if err := s.arrived(ctx, "shop-production", tip, s.second); err != nil {
		return err
	}
	if err := s.rollout(ctx, v1alpha1.PhaseHealthy); err != nil {
		return err
	}
	s.t.say("production runs shop 1 at %s, by its Rollout", tip.Short())
	return nil
}

// arrived waits until an image runs in full and its Application is Ready at the commit.
func (s *story) arrived(ctx context.Context, namespace string, commit gitsource.ObjectID, image string) error {
	return world.Eventually(ctx, patchy, func() error {
		return errors.Join(s.w.Deployment(ctx, namespace, "shop", image), s.w.Ready(ctx, namespace, commit))
	})
}

func (s *story) rollout(ctx context.Context, want v1alpha1.RolloutPhase) error {
	var rollout v1alpha1.Rollout
	if err := s.w.Kube.Get(ctx, client.ObjectKey{Namespace: "shop-production", Name: "shop"}, &rollout); err != nil {
		return err
	}
	if rollout.Status.Phase != want {
		return fmt.Errorf("rollout shop is %s, want %s", rollout.Status.Phase, want)
	}
	return nil
}

func (s *story) badVersion(ctx context.Context) error {
	changes := []gitsource.Change{world.ShopVersion("2"), world.ShopOfItsSite()}
	if simulated, _ := s.w.Cluster.Simulated(); simulated {
		played, err := s.w.ShopPlayed(ctx, "shop-production")
		if err != nil {
			return err
		}
		changes = append(changes, played)
	}
	var err error
	if s.badSource, err = s.push(ctx, "Show prices in the currency of the site", changes...); err != nil {
		return err
	}
	change, err := s.toDev(ctx, s.badSource)
	if err != nil {
		return err
	}
	s.bad, s.badRun = change.Image, change.Run
	if _, err := s.run(ctx, "runs", s.badRun); err != nil {
		return err
	}
	s.t.say("dev runs shop 2: there the currency is set")
	service := watchService(ctx, s.w)
	defer service.stop()
	if _, err := s.run(ctx, "promote", "shop", "--env", "production", "--merge"); err != nil {
		return err
	}
	if s.badCommit, err = s.w.Tip(ctx); err != nil {
		return err
	}
	s.t.say("shop 2 is merged to production at %s", s.badCommit.Short())
	if err := world.Eventually(ctx, soon, func() error { return s.rollout(ctx, v1alpha1.PhaseProgressing) }); err != nil {
		return err
	}
	s.t.say("the Rollout brings it in; meanwhile others go on committing")
	for _, change := range []gitsource.Change{
		world.Write("README.md", "# Fleet\n\nOn call this week: Kim.\n"),
		world.Write("docs/runbook.md", "# Runbook\n\nLook at slipway status first.\n"),
	} {
		id, err := s.w.Commit(ctx, "Write "+change.Path, change)
		if err != nil {
			return err
		}
		s.between = append(s.between, id)
	}
	revert, err := s.awaitRevert(ctx)
	if err != nil {
		return err
	}
	s.reverted = revert.ID
	s.t.say("revert commit:\n%s", describe(revert))
	if err := s.arrived(ctx, "shop-production", revert.ID, s.second); err != nil {
		return err
	}
	if err := s.gitEqualsCluster(ctx); err != nil {
		return err
	}
	s.t.say("production runs shop 1 in full, and Git says the same")
	return service.verdict(s.t)
}

// awaitRevert waits for the one revert of the bad commit, with its Hold.
func (s *story) awaitRevert(ctx context.Context) (gitsource.Commit, error) {
	var found gitsource.Commit
	err := world.Eventually(ctx, patchy, func() error {
		commits, err := s.w.Log(ctx, 20)
		if err != nil {
			return err
		}
		for _, commit := range commits {
			if slices.Contains(trailer.Parse(commit.Message).Reverts, s.badCommit) {
				found = commit
				return nil
			}
		}
		return fmt.Errorf("no commit reverts %s yet", s.badCommit.Short())
	})
	if err != nil {
		return found, err
	}
	if trailer.Parse(found.Message).Verdict == "" {
		return found, fmt.Errorf("revert %s carries no verdict", found.ID.Short())
	}
	content, err := s.w.File(ctx, environment.HoldPath("production", "shop"))
	if err != nil {
		return found, fmt.Errorf("the Hold: %w", err)
	}
	_, digest, _ := strings.Cut(s.bad, "@")
	if !strings.Contains(content, digest) {
		return found, fmt.Errorf("the Hold does not name %s:\n%s", digest, content)
	}
	return found, nil
}

// gitEqualsCluster compares what is applied with what the tip asks for, and looks for pods of the bad version.
func (s *story) gitEqualsCluster(ctx context.Context) error {
	app, err := s.w.Application(ctx, "shop-production")
	if err != nil {
		return err
	}
	status := app.Status
	if status.Applied == nil || status.Attempted == nil || status.Healthy == nil ||
		status.Applied.SetDigest != status.Attempted.SetDigest || status.Healthy.SetDigest != status.Attempted.SetDigest {
		return fmt.Errorf("shop-production: attempted %+v, applied %+v, healthy %+v differ", status.Attempted, status.Applied, status.Healthy)
	}
	if len(status.Marks) > 0 {
		return fmt.Errorf("shop-production still has the mark of %s", status.Marks[0].Revision)
	}
	return world.Eventually(ctx, soon, func() error {
		var pods corev1.PodList
		if err := s.w.Kube.List(ctx, &pods, client.InNamespace("shop-production")); err != nil {
			return err
		}
		for _, pod := range pods.Items {
			if pod.Spec.Containers[0].Image == s.bad {
				return fmt.Errorf("pod %s still runs the bad version", pod.Name)
			}
		}
		return nil
	})
}

func (s *story) unrelatedCommits(ctx context.Context) error {
	commits, err := s.w.Log(ctx, 30)
	if err != nil {
		return err
	}
	for _, id := range s.between {
		at := slices.IndexFunc(commits, func(c gitsource.Commit) bool { return c.ID == id })
		if at < 0 {
			return fmt.Errorf("commit %s is gone", id.Short())
		}
		s.t.say("%s %s", id.Short(), commits[at].Message)
	}
	readme, err := s.w.File(ctx, "README.md")
	if err != nil || !strings.Contains(readme, "Kim") {
		return fmt.Errorf("README.md has lost its change: %q, %w", readme, err)
	}
	return nil
}

func (s *story) handEdit(ctx context.Context) error {
	edits := []struct{ namespace, name, app, image string }{
		{"hello", "hello", "hello", s.second}, {"shop-production", "shop", "shop-production", s.first},
	}
	for _, e := range edits {
		var live appsv1.Deployment
		if err := s.w.Kube.Get(ctx, client.ObjectKey{Namespace: e.namespace, Name: e.name}, &live); err != nil {
			return err
		}
		before := live.Spec.Template.Spec.Containers[0].Image
		live.Spec.Template.Spec.Containers[0].Image = e.image
		if err := s.w.Kube.Update(ctx, &live, client.FieldOwner("kubectl-edit")); err != nil {
			return err
		}
		start := time.Now()
		err := world.Eventually(ctx, soon, func() error {
			if err := s.w.Kube.Get(ctx, client.ObjectKeyFromObject(&live), &live); err != nil {
				return err
			}
			if got := live.Spec.Template.Spec.Containers[0].Image; got != before {
				return fmt.Errorf("image is still %s", got)
			}
			return nil
		})
		if err != nil {
			return err
		}
		took := time.Since(start)
		s.t.say("kubectl edit of the image of %s/%s: healed after %d ms", e.namespace, e.name, took.Milliseconds())
		if took > time.Second {
			return fmt.Errorf("healed only after %s", took)
		}
		if err := s.driftEvent(ctx, e.namespace, e.app); err != nil {
			return err
		}
	}
	return nil
}

// driftEvent waits for the event that names the manager and what it changed.
func (s *story) driftEvent(ctx context.Context, namespaces ...string) error {
	return world.Eventually(ctx, soon, func() error {
		var events corev1.EventList
		if err := s.w.Kube.List(ctx, &events); err != nil {
			return err
		}
		for _, event := range events.Items {
			if strings.Contains(event.Message, "kubectl-edit") && slices.ContainsFunc(namespaces, func(n string) bool {
				return event.InvolvedObject.Namespace == n || event.InvolvedObject.Name == n
			}) {
				s.t.say("event: %s %s: %s", event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Message)
				return nil
			}
		}
		return fmt.Errorf("no event in %v names the manager kubectl-edit", namespaces)
	})
}

func (s *story) ask(ctx context.Context) error {
	status, err := s.run(ctx, "status")
	if err != nil {
		return err
	}
	if !strings.Contains(status, "shop-production") {
		return errors.New("status does not list shop-production")
	}
	trace, err := s.run(ctx, "trace", string(s.badCommit))
	if err != nil {
		return err
	}
	for _, want := range []string{s.badCommit.Short()[:7], "Fail", "evert"} {
		if !strings.Contains(trace, want) {
			return fmt.Errorf("trace does not say %q", want)
		}
	}
	// The chain is the same, whichever link of it is asked for.
	_, digest, _ := strings.Cut(s.bad, "@")
	var slowest time.Duration
	for what, subject := range map[string]string{"source commit": string(s.badSource), "run": s.badRun, "digest": digest, "revert": string(s.reverted)} {
		start := time.Now()
		other, err := s.quietly(ctx, "trace", subject)
		slowest = max(slowest, time.Since(start))
		if err != nil {
			return err
		}
		if other != trace {
			return fmt.Errorf("trace of the %s %s is another chain:\n%s", what, subject, other)
		}
	}
	s.t.say("the same chain is printed for the source commit, the run, the digest and the revert, each within %d ms", slowest.Milliseconds())
	log, err := exec.CommandContext(ctx, "git", "--git-dir", s.w.GitDir(), "log", "--graph", "--format=%h %an: %s", world.Branch).CombinedOutput()
	if err != nil {
		return fmt.Errorf("git log: %w: %s", err, log)
	}
	s.t.say("$ git log --graph\n%s", log)
	return nil
}

func describe(commit gitsource.Commit) string {
	return fmt.Sprintf("commit %s\nAuthor: %s <%s>\n\n%s", commit.ID, commit.Author.Name, commit.Author.Email, commit.Message)
}
