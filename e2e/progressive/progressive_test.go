package progressive

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge/bare"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const (
	requests = `traefik_service_requests_total{service=~"{{namespace}}-{{service}}-.+"`
	// ferry is a canary that is compared with stable by what the gateway counts.
	ferry = `{canary: {progressDeadline: 1m, steps: [{weight: 20}, {analysis: [{name: errors, interval: 1s, count: 12, inconclusiveLimit: 30, consecutiveErrorLimit: 15, errors: {
      minSamples: 60, total: 'sum by (service) (` + requests + `})',
      bad: 'sum by (service) (` + requests + `,code=~"5.."}) or 0 * sum by (service) (` + requests + `})'}}]}, {weight: 60}, {pause: {for: 3s}}]}}`
	served = `sum(rate(traefik_service_requests_total{service=~"{{namespace}}-web-.+"`
	// tug is blue-green with a bound.
	tug = `{blueGreen: {progressDeadline: 1m, after: [{name: errors, initialDelay: 4s, interval: 1s, count: 5, consecutiveErrorLimit: 15, range: {max: "0.05",
      query: '(` + served + `,code=~"5.."}[4s])) or vector(0)) / ` + served + `}[4s]))'}}]}}`
)

// story is one app, told by a test.
type story struct {
	*testing.T
	*port
	app    string
	pushes *pushes
}

// pushes are the times at which commits came to the Git host.
type pushes struct {
	sync.Mutex
	at map[gitsource.ObjectID]time.Time
}

func (p *pushes) note(push bare.Push) {
	p.Lock()
	defer p.Unlock()
	p.at[push.New] = time.Now()
}

func TestBehindAGateway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a real node needs root and namespaces")
	}
	p := newPort(t)
	files := []gitsource.Change{world.Write("slipway.yaml", delivery), world.Write("README.md", "# Fleet\n")}
	for app, strategy := range map[string]string{"ferry": ferry, "tug": tug} {
		of, err := p.app(app, p.good, strategy)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, of...)
	}
	if _, err := p.Commit(t.Context(), "Start", files...); err != nil {
		t.Fatal(err)
	}
	pushed := &pushes{at: map[gitsource.ObjectID]time.Time{}}
	p.OnPush(pushed.note)
	if _, err := p.StartAgent(t.Context(), world.AgentOptions{Args: []string{"--prometheus", p.measure(t)}}); err != nil {
		t.Fatal(err)
	}
	t.Run("a canary", func(t *testing.T) {
		s := story{t, p, "ferry", pushed}
		s.runs(p.good)
		see := s.asked()
		s.commit("Promote version 2", p.better)
		s.runs(p.better)
		got := see()
		t.Logf("a good canary: %d answers, %d errors, by version %v", got.asked, got.errors, got.by)
		if got.errors != 0 || got.by["1"] == 0 || got.by["2"] == 0 {
			t.Errorf("while version 2 came in people got %v", got.by)
		}
		s.comesBack("WorseThanBaseline", p.failing, p.better, see)
	})
	t.Run("blue-green", func(t *testing.T) {
		s := story{t, p, "tug", pushed}
		s.runs(p.good)
		s.comesBack("MetricOutOfRange", p.failing, p.good, s.asked())
	})
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// asked begins to ask, and returns once answers come.
func (s story) asked() func() answers {
	s.Helper()
	see := s.ask(s.T, s.app)
	s.must(world.Eventually(s.Context(), atMost, func() error {
		if got := see(); got.by["1"] == 0 {
			return fmt.Errorf("answers: %v", got.by)
		}
		return nil
	}))
	before := see()
	return func() answers { return see().since(before) }
}

func (a answers) since(before answers) answers {
	for k, n := range before.by {
		if a.by[k] -= n; a.by[k] == 0 {
			delete(a.by, k)
		}
	}
	a.asked, a.errors = a.asked-before.asked, a.errors-before.errors
	return a
}

func (s story) commit(message, image string) gitsource.ObjectID {
	s.Helper()
	id, err := s.Commit(s.Context(), message, s.use(s.app, image))
	s.must(err)
	return id
}

// runs waits until an image runs in full, and nothing beside it.
func (s story) runs(image string) {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, func() error {
		var canary appsv1.Deployment
		beside := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: "web-canary"}, &canary)
		if !apierrors.IsNotFound(beside) {
			return errors.Join(fmt.Errorf("a canary runs; the Rollout is %+v", s.status()), beside)
		}
		return errors.Join(s.Deployment(s.Context(), s.app, "web", image), s.Ready(s.Context(), s.app, ""))
	}))
}

func (s story) status() v1alpha1.RolloutStatus {
	var rollout v1alpha1.Rollout
	_ = s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: "web"}, &rollout)
	return rollout.Status
}

// comesBack promotes a bad image. It waits until traffic is back, then for the one commit that reverts it, and holds that
// Git says what the cluster has.
func (s story) comesBack(reason, bad, image string, see func() answers) {
	s.Helper()
	before := see()
	failed := s.failsAt()
	commit := s.commit("Promote version 3", bad)
	var verdict fails
	select {
	case verdict = <-failed:
	case <-time.After(atMost):
		s.Fatalf("no Fail; the Rollout is %+v", s.status())
	}
	if verdict.reason != reason {
		s.Errorf("the verdict is %+v, want %s", verdict, reason)
	}
	var reverts []gitsource.Commit
	s.must(world.Eventually(s.Context(), atMost, func() error {
		commits, err := s.World.Log(s.Context(), 100)
		reverts = slices.DeleteFunc(commits, func(c gitsource.Commit) bool { return !slices.Contains(trailer.Parse(c.Message).Reverts, commit) })
		if err == nil && len(reverts) == 0 {
			err = fmt.Errorf("no commit reverts %s; the Rollout is %+v", commit, s.status())
		}
		return err
	}))
	s.runs(image)
	got := see().since(before)
	s.pushes.Lock()
	pushed := s.pushes.at[reverts[0].ID]
	s.pushes.Unlock()
	s.Logf("%s: from the verdict to the last answer of the bad version %s, to the revert commit %s; meanwhile %d answers, %d errors: %v",
		reason, got.last["3"].Sub(verdict.at).Round(10*time.Millisecond), pushed.Sub(verdict.at).Round(10*time.Millisecond), got.asked, got.errors, got.by)
	if late := got.last["3"].Sub(verdict.at); late > 5*time.Second {
		s.Errorf("the bad version answered for %s after its verdict", late)
	}
	for answer := range got.by {
		if strings.HasPrefix(answer, "!") && !strings.HasSuffix(answer, " by 3") {
			s.Errorf("people got %d times %s", got.by[answer], answer)
		}
	}
	if len(reverts) != 1 || trailer.Parse(reverts[0].Message).Verdict == "" || !strings.Contains(reverts[0].Message, "metric errors") {
		s.Errorf("%d commits revert it, the first\n%s", len(reverts), reverts[0].Message)
	}
	content, err := s.File(s.Context(), "apps/"+s.app+"/production/kustomization.yaml")
	s.must(err)
	if want := string(s.use(s.app, image).Content); content != want {
		s.Errorf("in Git stands\n%s\nwant\n%s", content, want)
	}
	_, digest, _ := strings.Cut(bad, "@")
	if hold, err := s.File(s.Context(), environment.HoldPath("production", s.app)); err != nil || !strings.Contains(hold, digest) {
		s.Errorf("the bad image is not held: %v %s", err, hold)
	}
	s.must(world.Eventually(s.Context(), atMost, func() error {
		var service corev1.Service
		err := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: "web"}, &service)
		if err == nil && len(service.Spec.Selector) != 1 {
			err = fmt.Errorf("the Service selects %v", service.Spec.Selector)
		}
		return err
	}))
}

// fails is when a Fail could be seen, and why.
type fails struct {
	at     time.Time
	reason string
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
				seen <- fails{time.Now(), rollout.Status.Verdict.Reason}
				return
			}
		}
		close(seen) // the watch ended, as with the test
	}()
	return seen
}
