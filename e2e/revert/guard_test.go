package revert

import (
	"os/exec"
	"strings"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter"
)

// merge commits changes on a branch and merges it: the merge commit has two parents and no trailers.
func (s story) merge(message string, changes ...gitsource.Change) gitsource.ObjectID {
	s.Helper()
	tip, err := s.Tip(s.Context())
	s.must(err)
	branch, err := s.CommitOn(s.Context(), tip, message, changes...)
	s.must(err)
	for {
		tip, err = s.Tip(s.Context())
		s.must(err)
		tree, err := s.Repo.WriteTree(tip, changes)
		s.must(err)
		id, err := s.Repo.Commit(gitsource.NewCommit{
			Parents: []gitsource.ObjectID{tip, branch}, Tree: tree, Message: "Merge the branch", Author: world.Person(), Committer: world.Person(),
		})
		s.must(err)
		if s.Repo.Push(s.Context(), "refs/heads/"+world.Branch, tip, id) == nil {
			return id
		}
	}
}

// irreversibleBehindMerge: the merge commit and what comes after it do not say what the merged one says.
func (s story) irreversibleBehindMerge() {
	bad := s.merge("Migrate\n\nSlipway-Irreversible: true\n", s.use("migrated", s.bad))
	s.commit("Write about it", world.Write("docs/migrated.md", "done"))
	message := s.stands("migrated", v1alpha1.ReasonMarked, s.good)
	if !strings.Contains(message, "Slipway-Irreversible") {
		s.Errorf("it does not say why: %s", message)
	}
	if n := len(s.reverts("migrated", bad)); n != 0 {
		s.Errorf("%d reverts", n)
	}
}

// common are the files of a second Application on the base of "common". Only production's
// entry for the image helper is bad, which nothing uses until the base does.
func (p *port) common() []gitsource.Change {
	name, digest, _ := strings.Cut(p.good, "@")
	_, bad, _ := strings.Cut(p.bad, "@")
	overlay := func(namespace, helper string) string {
		entry := func(image, digest string) string {
			return "  - name: " + image + "\n    newName: " + name + "\n    digest: " + digest + "\n"
		}
		return "namespace: " + namespace + "\nresources: [../base]\nimages:\n" + entry("web", digest) + entry("helper", helper)
	}
	return []gitsource.Change{
		world.Write("clusters/demo/common-dev.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: common-dev}\n---\n"+`apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: common-dev, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/common/dev
`),
		world.Write("apps/common/dev/kustomization.yaml", overlay("common-dev", digest)),
		world.Write(kustomization("common"), overlay("common", bad)),
	}
}

// siblingOnBase: who merges the wider revert is told which other application goes back with it.
func (s story) siblingOnBase() {
	withHelper := strings.Replace(workload, "{name: web, image: web}", "{name: web, image: web}, {name: helper, image: helper}", 1)
	bad := s.commit("Give everybody the helper", world.Write("apps/common/base/web.yaml", withHelper+rollout))
	message := s.stands("common", v1alpha1.ReasonRevertNeedsPerson, s.good)
	log, err := exec.CommandContext(s.Context(), "git", "--git-dir", s.GitDir(), "log", "-1", "--format=%B", "revert/production/common").CombinedOutput()
	s.must(err)
	for _, want := range []string{"what changed in apps/common goes back", "application common-dev"} {
		if !strings.Contains(message, want) || !strings.Contains(string(log), want) {
			s.Errorf("who decides is not told %q by\n%s\nor by\n%s", want, message, log)
		}
	}
	if n := len(s.reverts("common", bad)); n != 0 {
		s.Fatalf("%d reverts were pushed to the followed branch", n)
	}
	s.runs("common-dev", s.good) // with the helper, which does well there
	s.agree("common")
	s.runs("common", s.good)
	s.runs("common-dev", s.good)
	if content, err := s.File(s.Context(), "apps/common/base/web.yaml"); err != nil || content != workload+rollout {
		s.Errorf("the base is not back: %v\n%s", err, content)
	}
}

// agree merges the revert that waits for a person.
func (s story) agree(app string) {
	s.Helper()
	p, err := promoter.New(promoter.Options{Repo: s.Repo, Branch: world.Branch})
	s.must(err)
	_, err = p.MergeRevert(s.Context(), "production", app, world.Person(), "agreed")
	s.must(err)
}

// personWins: a person takes the version back while the agent's revert is on its way.
func (s story) personWins() {
	undone := make(chan struct{})
	bad := s.commit("Promote overtaken", s.use("overtaken", s.bad))
	s.BeforeNextPush(func() {
		defer close(undone)
		if _, err := s.Commit(s.Context(), "Revert \"Promote overtaken\"\n\nThis reverts commit "+string(bad)+".\n", s.use("overtaken", s.good)); err != nil {
			s.Error(err)
		}
	})
	select {
	case <-undone:
	case <-s.Context().Done():
		s.Fatal(s.Context().Err())
	}
	s.runs("overtaken", s.good)
	if n := len(s.reverts("overtaken", bad)); n != 0 {
		s.Errorf("%d more reverts", n)
	}
	if s.held("overtaken", s.bad) {
		s.Error("the agent wrote a Hold although a person has decided")
	}
}

// noHealthyTime: the next bad version lands on the revert before anybody has seen that one healthy.
func (s story) noHealthyTime() {
	first := s.commit("Promote twice", s.use("twice", s.bad))
	landed := make(chan gitsource.ObjectID, 1)
	s.AfterNextPush(func() {
		id, err := s.Commit(s.Context(), "Promote twice, at once", s.use("twice", s.worse))
		if err != nil {
			s.Error(err)
		}
		landed <- id
	})
	second := <-landed
	message := s.stands("twice", v1alpha1.ReasonMarked, s.good)
	if !strings.Contains(message, "has not been followed by a healthy state") {
		s.Errorf("it does not say why: %s", message)
	}
	if one, two := len(s.reverts("twice", first)), len(s.reverts("twice", second)); one != 1 || two != 0 {
		s.Errorf("%d and %d reverts, want one of the first only", one, two)
	}
	// A version that does well ends that.
	s.commit("Promote a good one", s.use("twice", s.better))
	s.runs("twice", s.better)
	third := s.commit("Promote twice again", s.use("twice", s.worse))
	s.comesBack("twice", third, s.worse, s.better)
}
