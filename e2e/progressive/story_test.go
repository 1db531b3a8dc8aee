package progressive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// replicas of each app.
const replicas = 3

// story is one app, told by a test.
type story struct {
	testing.TB
	*port
	app string
}

// begin makes an app whose Rollout has a strategy, and waits until its first version runs.
func (p *port) begin(tb testing.TB, app, strategy string) story {
	tb.Helper()
	return p.beginWith(tb, app, p.good, strategy)
}

func (p *port) beginWith(tb testing.TB, app, image, strategy string) story {
	tb.Helper()
	s := story{tb, p, app}
	files, err := p.app(app, image, strategy)
	s.must(err)
	_, err = s.Commit(s.Context(), "Begin "+app, files...)
	s.must(err)
	s.runs(image)
	return s
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// eventually waits until f is happy. It asks less often than there is something new: other stories are told meanwhile.
func (s story) eventually(f func() error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), atMost)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.Fatalf("not within %s: %v\nthe Rollout is %+v", atMost, err, s.status())
		case <-tick.C:
		}
	}
}

// asked begins to ask, and returns once the first version answers.
func (s story) asked(rate int, headers ...string) *people {
	s.Helper()
	all := s.ask(s.TB, s.app, rate, headers...)
	s.eventually(func() error {
		if got := all.since(0); got.by()["1"] == 0 {
			return fmt.Errorf("answers: %v", got.by())
		}
		return nil
	})
	return all
}

// promote commits an image and the configuration of its version, with further settings.
func (s story) promote(image string, settings ...string) gitsource.ObjectID {
	s.Helper()
	id, err := s.Commit(s.Context(), "Promote version "+s.version(image)+" of "+s.app, s.use(s.app, image, settings...)...)
	s.must(err)
	return id
}

// runs waits until an image runs in full, nothing beside it, and Git and the cluster agree.
func (s story) runs(image string) {
	s.Helper()
	s.eventually(func() error {
		var canary appsv1.Deployment
		beside := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: "web-canary"}, &canary)
		if !apierrors.IsNotFound(beside) {
			return errors.Join(errors.New("a canary runs"), beside)
		}
		return errors.Join(s.Deployment(s.Context(), s.app, "web", image), s.Ready(s.Context(), s.app, ""))
	})
	s.eventually(s.agrees)
}

func (s story) status() v1alpha1.RolloutStatus {
	var rollout v1alpha1.Rollout
	_ = s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: "web"}, &rollout)
	return rollout.Status
}

// goesWell promotes a version that is well. People see nothing but that it comes, all of them in the end.
func (s story) goesWell(image string, all *people) {
	s.Helper()
	mark := all.mark()
	s.promote(image)
	s.runs(image)
	got := all.since(mark)
	s.Logf("%s: version %s came in: %d answers, by version %v", s.app, s.version(image), len(got), got.by())
	if faults := got.faults(); len(faults) > 0 || got.first(s.version(image)).IsZero() {
		s.Errorf("while version %s came in people got %v, faults %v", s.version(image), got.by(), faults)
	}
}

// comeback is how fast a bad version was gone, each from its verdict.
type comeback struct {
	traffic time.Duration // until its last answer
	commit  time.Duration // until Git had the revert
	asInGit time.Duration // until all objects were as Git says
	agreed  time.Duration // until nothing was beside them, either
	seen    time.Duration // from its first answer to the verdict
}

// bad is a version that has to come back.
type bad struct {
	image string
	// settings make the image bad, which is well without them.
	settings []string
	reason   string   // of the verdict
	says     []string // words of the verdict and of the revert commit
	gone     bool     // its pods go away by themselves, so that the gateway has nobody to ask
	print    bool     // the commit that reverts it
	// besides is a version that fails, too, as much as it always did.
	besides string
}

// calls is what a bad version calls itself.
func (s story) calls(b bad) string {
	if len(b.settings) > 0 {
		return "3"
	}
	return s.version(b.image)
}

// comesBack promotes a bad version. It waits until traffic is back, then for the one commit that reverts it, and holds that
// Git says what the cluster has.
func (s story) comesBack(b bad, to string, all *people) comeback {
	s.Helper()
	mark := all.mark()
	failed := s.failsAt()
	commit := s.promote(b.image, b.settings...)
	var verdict fails
	select {
	case verdict = <-failed:
	case <-time.After(atMost):
		s.Fatalf("no Fail; the Rollout is %+v", s.status())
	}
	revert := s.reverted(commit)
	r := comeback{commit: s.pushes.of(revert.ID).Sub(verdict.at)}
	s.eventually(s.asInGit)
	r.asInGit = time.Since(verdict.at)
	s.runs(to)
	r.agreed = time.Since(verdict.at)
	got := all.since(mark)
	if last := got.last(s.calls(b)); !last.IsZero() {
		r.traffic, r.seen = last.Sub(verdict.at), verdict.at.Sub(got.first(s.calls(b)))
	}
	tenths := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	s.Logf("%s: %s: %s after its first answer; from the verdict to its last answer %s, to the revert commit %s, until all is as in Git %s, and nothing beside it %s; meanwhile %d answers, by version %v, %d bad",
		s.app, verdict.reason, tenths(r.seen), tenths(r.traffic), tenths(r.commit), tenths(r.asInGit), tenths(r.agreed), len(got), got.by(), got.bad())
	if r.traffic > 5*time.Second {
		s.Errorf("the bad version answered for %s after its verdict", r.traffic)
	}
	if faults := got.faults(s.calls(b), b.besides); len(faults) > 0 && !b.gone {
		s.Errorf("people got %v", faults)
	}
	if verdict.reason != b.reason {
		s.Errorf("the verdict is %s, want %s: %s", verdict.reason, b.reason, verdict.message)
	}
	for _, word := range b.says {
		if !strings.Contains(verdict.message, word) || !strings.Contains(revert.Message, word) {
			s.Errorf("the verdict %q or the commit does not say %q:\n%s", verdict.message, word, revert.Message)
		}
	}
	if b.print {
		s.Logf("commit %s\nAuthor: %s <%s>\nDate: %s\n\n%s", revert.ID, revert.Author.Name, revert.Author.Email, revert.Author.When.Format(time.RFC3339), revert.Message)
	}
	s.inGit(to)
	if len(b.settings) == 0 {
		s.held(b.image)
	}
	return r
}

// reverted waits for the one commit that reverts another.
func (s story) reverted(commit gitsource.ObjectID) gitsource.Commit {
	s.Helper()
	var reverts []gitsource.Commit
	s.eventually(func() error {
		commits, err := s.World.Log(s.Context(), 100)
		reverts = slices.DeleteFunc(commits, func(c gitsource.Commit) bool { return !slices.Contains(trailer.Parse(c.Message).Reverts, commit) })
		if err == nil && len(reverts) == 0 {
			err = fmt.Errorf("no commit reverts %s", commit)
		}
		return err
	})
	if len(reverts) != 1 || trailer.Parse(reverts[0].Message).Verdict == "" {
		s.Errorf("%d commits revert it, the first\n%s", len(reverts), reverts[0].Message)
	}
	return reverts[0]
}

// inGit holds that production is what it was before a bad version.
func (s story) inGit(image string) {
	s.Helper()
	for _, change := range s.use(s.app, image) {
		if content, err := s.File(s.Context(), change.Path); err != nil || content != string(change.Content) {
			s.Errorf("%s: %v\n%s\nwant\n%s", change.Path, err, content, change.Content)
		}
	}
}

// held holds that nobody writes a bad image back.
func (s story) held(bad string) {
	s.Helper()
	_, digest, _ := strings.Cut(bad, "@")
	if hold, err := s.File(s.Context(), environment.HoldPath("production", s.app)); err != nil || !strings.Contains(hold, digest) {
		s.Errorf("the bad image is not held: %v %s", err, hold)
	}
}

// fails is when a Fail could be seen, and why.
type fails struct {
	at              time.Time
	reason, message string
}

// failsAt watches for the next Fail.
func (s story) failsAt() <-chan fails {
	s.Helper()
	watching, err := s.Kube.Watch(s.Context(), &v1alpha1.RolloutList{}, client.InNamespace(s.app))
	s.must(err)
	s.Cleanup(watching.Stop)
	seen := make(chan fails, 1)
	go func() {
		for event := range watching.ResultChan() {
			rollout, is := event.Object.(*v1alpha1.Rollout)
			if is && rollout.Status.Verdict != nil && rollout.Status.Verdict.Outcome == v1alpha1.VerdictFail {
				seen <- fails{time.Now(), rollout.Status.Verdict.Reason, rollout.Status.Verdict.Message}
				return
			}
		}
	}()
	return seen
}
