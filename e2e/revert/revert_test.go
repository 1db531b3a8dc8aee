package revert

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter"
)

// TestWaysBack tells how an agent alone takes bad versions back.
func TestWaysBack(t *testing.T) {
	apps := []string{
		"merged", "squashed", "one", "two", "three", "shared", "busy", "fixed", "plain", "final", "undone", "again", "raced", "offline",
		"migrated", "common", "overtaken", "twice", "served", "leaned",
	}
	p := newPort(t, apps...)
	// A workload without a Rollout: its own progress deadline is what fails.
	s := story{t, p}
	s.commit("Leave the Rollout of plain out", world.Write("apps/plain/base/web.yaml", workload))
	s.commit("Put common into dev, too", p.common()...)
	agent, err := p.StartAgent(t.Context(), world.AgentOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range apps {
		s.runs(app, p.good)
	}
	t.Run("together", func(t *testing.T) {
		for name, tell := range map[string]func(story){
			"a merge commit":                         story.mergeCommit,
			"a squash merge":                         story.squash,
			"one of three in a batch":                story.batch,
			"a shared base":                          story.sharedBase,
			"unrelated commits after it":             story.unrelated,
			"the fixed version afterwards":           story.fixedVersion,
			"a workload without a Rollout":           story.withoutRollout,
			"an irreversible commit":                 story.irreversible,
			"a person is faster":                     story.person,
			"a second failure, after a healthy time": story.secondFailure,
			"no last healthy set":                    story.neverHealthy,
			"an irreversible commit behind a merge":  story.irreversibleBehindMerge,
			"a sibling on the shared base":           story.siblingOnBase,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				tell(story{t, p})
				t.Logf("told in %.1f s", time.Since(start).Seconds())
			})
		}
	})
	for _, alone := range []struct {
		name string
		tell func(story)
	}{
		{"a lost push race", story.lostRace},
		{"a person wins the race", story.personWins},
		{"a second failure, before a healthy time", story.noHealthyTime},
		{"the Git host is down", story.hostDown},
		{"by a server", func(s story) { s.byServer(agent) }},
	} {
		t.Run(alone.name, func(t *testing.T) {
			start := time.Now()
			alone.tell(story{t, p})
			t.Logf("told in %.1f s", time.Since(start).Seconds())
		})
	}
}

func (s story) mergeCommit() {
	bad := s.merge("Work on a branch", s.use("merged", s.bad))
	s.comesBack("merged", bad, s.bad, s.good)
}

func (s story) squash() {
	bad := s.commit("Improve squashed (#42)\n\n* Try this\n\n* Try that\n\nCo-authored-by: Kim <kim@shop.example>\n", s.use("squashed", s.worse), world.Write("docs/squashed.md", "why"))
	s.comesBack("squashed", bad, s.worse, s.good)
	if _, err := s.File(s.Context(), "docs/squashed.md"); err != nil {
		s.Errorf("a file outside of the application's path went back too: %s", err)
	}
}

func (s story) batch() {
	bad := s.commit("Promote one, two and three", s.use("one", s.better), s.use("two", s.bad), s.use("three", s.better))
	s.comesBack("two", bad, s.bad, s.good)
	s.runs("one", s.better)
	s.runs("three", s.better)
	if n := len(s.reverts("one", bad)) + len(s.reverts("three", bad)); n != 0 {
		s.Errorf("%d reverts of applications that are healthy", n)
	}
}

func (s story) sharedBase() {
	// The base names the bad image itself, so that the path's own entry does not matter.
	bad := s.commit("Change the base", world.Write("apps/shared/base/web.yaml", strings.Replace(workload, "image: web", "image: \""+s.bad+"\"", 1)+rollout))
	message := s.stands("shared", v1alpha1.ReasonRevertNeedsPerson, s.good)
	if !strings.Contains(message, "apps/shared/production") || !strings.Contains(message, "shared base") {
		s.Errorf("it does not say why a person is needed: %s", message)
	}
	if n := len(s.reverts("shared", bad)); n != 0 {
		s.Fatalf("%d reverts were pushed to the followed branch", n)
	}
	branches, err := s.Branches(s.Context())
	s.must(err)
	if !strings.Contains(strings.Join(branches, " "), "revert/production/shared") {
		s.Fatalf("no branch waits for a person, but %v", branches)
	}
	s.agree("shared")
	s.runs("shared", s.good)
}

func (s story) unrelated() {
	bad := s.commit("Promote busy", s.use("busy", s.bad))
	others := []string{"docs/a.md", "docs/b.md", "apps/busy/base/NOTES.md"}
	for _, name := range others {
		s.commit("Write "+name, world.Write(name, name))
	}
	s.comesBack("busy", bad, s.bad, s.good)
	for _, name := range others {
		if content, err := s.File(s.Context(), name); err != nil || content != name {
			s.Errorf("%s is lost: %q, %v", name, content, err)
		}
	}
}

func (s story) fixedVersion() {
	bad := s.commit("Promote fixed", s.use("fixed", s.bad))
	s.comesBack("fixed", bad, s.bad, s.good)
	p, err := promoter.New(promoter.Options{Repo: s.Repo, Branch: world.Branch})
	s.must(err)
	request := promoter.Request{App: "fixed", Environment: "production", Author: world.Person()}
	request.Images = images(s.bad)
	if _, err := p.Promote(s.Context(), request); err == nil {
		s.Error("the held image was promoted again")
	}
	request.Images = images(s.better)
	if _, err := p.Promote(s.Context(), request); err != nil {
		s.Fatal(err)
	}
	s.runs("fixed", s.better)
	if s.held("fixed", s.bad) {
		s.Error("the Hold stands although another version was promoted")
	}
}

func (s story) withoutRollout() {
	bad := s.commit("Promote plain", s.use("plain", s.bad))
	s.comesBack("plain", bad, s.bad, s.good)
}

func (s story) irreversible() {
	bad := s.commit("Migrate\n\nSlipway-Irreversible: true\n", s.use("final", s.bad))
	message := s.stands("final", v1alpha1.ReasonMarked, s.good)
	if !strings.Contains(message, "Slipway-Irreversible") {
		s.Errorf("it does not say why: %s", message)
	}
	if n := len(s.reverts("final", bad)); n != 0 {
		s.Errorf("%d reverts", n)
	}
}

func (s story) person() {
	bad := s.commit("Promote undone", s.use("undone", s.bad))
	s.asks("undone", s.bad)
	s.commit("Revert \"Promote undone\"\n\nThis reverts commit "+string(bad)+".\n", s.use("undone", s.good))
	s.runs("undone", s.good)
	if n := len(s.reverts("undone", bad)); n != 0 {
		s.Errorf("%d more reverts", n)
	}
}

func (s story) secondFailure() {
	bad := s.commit("Promote again", s.use("again", s.bad))
	s.comesBack("again", bad, s.bad, s.good)
	bad = s.commit("Promote again once more", s.use("again", s.worse))
	s.comesBack("again", bad, s.worse, s.good)
}

func (s story) neverHealthy() {
	bad := s.commit("Begin with a bad version", s.app("unborn", s.bad)...)
	message := s.stands("unborn", v1alpha1.ReasonNoHealthySet, "")
	if !strings.Contains(message, "commit a corrected version") {
		s.Errorf("it does not say the way out: %s", message)
	}
	if n := len(s.reverts("unborn", bad)); n != 0 {
		s.Errorf("%d reverts", n)
	}
	s.commit("Correct it", s.use("unborn", s.good))
	s.runs("unborn", s.good)
}

// lostRace has somebody else push while the agent's revert is on its way.
func (s story) lostRace() {
	bad := s.commit("Promote raced", s.use("raced", s.bad))
	other, err := gogit.Open(s.Context(), gogit.Options{Dir: s.TempDir(), URL: s.URL})
	s.must(err)
	lost := make(chan gitsource.ObjectID, 1)
	s.BeforeNextPush(func() {
		winner := world.Repository{URL: s.URL, Store: other}
		id, err := winner.Commit(s.Context(), "Be faster", world.Write("docs/faster.md", "first"))
		if err != nil {
			s.Error(err)
		}
		lost <- id
	})
	revert := s.comesBack("raced", bad, s.bad, s.good)
	faster := <-lost
	if len(revert.Parents) != 1 || revert.Parents[0] != faster {
		s.Errorf("the revert stands on %v, not on %s", revert.Parents, faster)
	}
}

// hostDown takes the Git host away while a version fails.
func (s story) hostDown() {
	bad := s.commit("Promote offline", s.use("offline", s.bad))
	s.asks("offline", s.bad)
	s.must(s.StopHost())
	// Pods are back and the state says so, with nobody to talk to.
	s.stands("offline", v1alpha1.ReasonRevertRequested, s.good)
	down := time.Now()
	s.must(world.Eventually(s.Context(), atMost, func() error {
		var source v1alpha1.GitSource
		return s.sourceIs(&source, v1alpha1.ReasonSourceUnreachable)
	}))
	s.must(s.StartHost())
	s.comesBack("offline", bad, s.bad, s.good)
	s.Logf("in Git %.1f s after the host was back", time.Since(down).Seconds())
	if out, err := exec.CommandContext(s.Context(), "git", "--git-dir", s.GitDir(), "fsck", "--strict").CombinedOutput(); err != nil {
		s.Errorf("git fsck: %v\n%s", err, out)
	}
}
