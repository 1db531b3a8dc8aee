package kill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const (
	app    = "web"
	atMost = 90 * time.Second
)

// stage is one application whose versions come and go while its agent is killed.
type stage struct {
	*testing.T
	*world.World
	images  int // built so far: each version has one of its own, since a held one may not come back
	healthy string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-kill-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(t.Context(), world.Options{Dir: dir, Node: cluster.NodeKwok, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	s := &stage{T: t, World: w}
	s.healthy = s.image("ready")
	_, err = w.Commit(t.Context(), "Start", append(files(), s.use(s.healthy))...)
	s.must(err)
	s.must(w.Install(t.Context()))
	return s
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// image pushes a version of the sample service that behaves in a way.
func (s *stage) image(behaviour string) string {
	s.Helper()
	s.images++
	reference, err := s.Sample(s.Context(), fmt.Sprint(s.images), behaviour)
	s.must(err)
	return reference
}

func (s *stage) use(image string) gitsource.Change {
	name, digest, _ := strings.Cut(image, "@")
	return world.Write("apps/web/production/kustomization.yaml",
		"namespace: web\nresources: [../base]\nimages:\n  - name: web\n    newName: "+name+"\n    digest: "+digest+"\n")
}

func files() []gitsource.Change {
	return []gitsource.Change{
		world.Write("slipway.yaml", "apiVersion: slipway.dev/v1alpha1\nkind: Delivery\nenvironments:\n  - {name: production, path: \"apps/{app}/production\", promote: {by: commit}}\n"),
		world.Write("clusters/demo/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n"),
		world.Write("clusters/demo/web.yaml", `apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: web, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/web/production
  environment: production
`),
		world.Write("apps/web/base/kustomization.yaml", "resources: [web.yaml]\n"),
		world.Write("apps/web/base/web.yaml", `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web
          envFrom: [{configMapRef: {name: settings}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {GREETING: hello}
---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {name: web}
  strategy:
    rolling: {progressDeadline: 3s}
`),
	}
}

// runs waits until an image runs in full and the Application is Ready with the newest commit.
func (s *stage) runs(image string) {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, func() error {
		tip, err := s.Tip(s.Context())
		return errors.Join(err, s.Deployment(s.Context(), "web", "web", image), s.Ready(s.Context(), app, tip))
	}))
}

// reverted waits until a bad commit has come back, and holds that it did so once.
func (s *stage) reverted(bad gitsource.ObjectID, image string) {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, func() error {
		n, err := s.reverts(bad)
		if err == nil && n == 0 {
			err = fmt.Errorf("%s is not reverted yet", bad.Short())
		}
		return err
	}))
	s.runs(s.healthy)
	n, err := s.reverts(bad)
	s.must(err)
	if n != 1 {
		s.Fatalf("%s was reverted by %d commits", bad.Short(), n)
	}
	holds, err := s.File(s.Context(), environment.HoldPath("production", app))
	s.must(err)
	if _, digest, _ := strings.Cut(image, "@"); strings.Count(holds, digest) != 1 {
		s.Errorf("the Hold names %s %d times:\n%s", digest, strings.Count(holds, digest), holds)
	}
	state, err := s.Application(s.Context(), app)
	s.must(err)
	if len(state.Status.Marks) != 0 || state.Status.RevertRequest != nil || state.Status.Applied.SetDigest != state.Status.Healthy.SetDigest {
		s.Errorf("not at rest: %+v", state.Status)
	}
}

func (s *stage) reverts(bad gitsource.ObjectID) (int, error) {
	return s.Count(s.Context(), 200, func(c gitsource.Commit) bool { return slices.Contains(trailer.Parse(c.Message).Reverts, bad) })
}

// commits counts what the branch holds.
func (s *stage) commits() int {
	s.Helper()
	commits, err := s.Log(s.Context(), 1000)
	s.must(err)
	return len(commits)
}

// TestFailpoints kills the agent once at each of its named points, while a bad version fails.
func TestFailpoints(t *testing.T) {
	s := newStage(t)
	agent := s.start("")
	s.runs(s.healthy)
	for _, point := range []string{
		"before-first-apply", "after-verdict-before-traffic", "after-traffic", "after-traffic-before-mark", "after-mark-before-request",
		"after-commit-before-push", "after-push-before-status",
	} {
		t.Run(point, func(t *testing.T) {
			s := &stage{T: t, World: s.World, images: s.images, healthy: s.healthy}
			agent.Kill()
			agent = s.start(point)
			s.runs(s.healthy)
			before, start := s.commits(), time.Now()
			image := s.image("never-ready")
			bad, err := s.Commit(t.Context(), "Bring in a bad version", s.use(image))
			s.must(err)
			select {
			case <-agent.Done():
				if !agent.Killed() {
					t.Fatalf("the agent ended by itself; see %s", agent.Log)
				}
			case <-time.After(atMost):
				t.Fatalf("the agent never came to the failpoint; see %s", agent.Log)
			}
			died := time.Since(start)
			agent = s.start("")
			s.reverted(bad, image)
			if after := s.commits(); after != before+2 {
				t.Errorf("%d commits were made, want the bad one and its revert", after-before)
			}
			t.Logf("killed %.1f s after the commit, at rest after %.1f s", died.Seconds(), time.Since(start).Seconds())
		})
		s.images++
	}
}

func (s *stage) start(failpoint string) *world.Process {
	s.Helper()
	// The test outlives its subtests, and so does the agent.
	agent, err := s.StartAgent(context.WithoutCancel(s.Context()), world.AgentOptions{Failpoint: failpoint})
	s.must(err)
	return agent
}

// TestRandomKills kills the agent twenty times at random moments while good and bad versions come in.
func TestRandomKills(t *testing.T) {
	s := newStage(t)
	agent := s.start("")
	s.runs(s.healthy)
	seed := uint64(time.Now().UnixNano())    //nolint:gosec // any number will do
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
	t.Logf("seed %d", seed)
	const rounds, killsPerRound = 5, 4
	before := s.commits()
	for round := range rounds {
		image := s.image("never-ready")
		bad, err := s.Commit(t.Context(), "Bring in a bad version", s.use(image))
		s.must(err)
		for range killsPerRound {
			select {
			case <-time.After(time.Duration(random.Int64N(int64(2500 * time.Millisecond)))):
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			}
			agent.Kill()
			agent = s.start("")
		}
		s.reverted(bad, image)
		if round%2 == 0 {
			s.healthy = s.image("ready")
			_, err = s.Commit(t.Context(), "Bring in a good version", s.use(s.healthy), world.Remove(environment.HoldPath("production", app)))
			s.must(err)
			s.runs(s.healthy)
			before++
		}
	}
	if made := s.commits() - before; made != 2*rounds {
		t.Errorf("%d commits, want %d bad ones and as many reverts", made, rounds)
	}
	var deployment appsv1.Deployment
	s.must(s.Kube.Get(t.Context(), client.ObjectKey{Namespace: "web", Name: "web"}, &deployment))
	t.Logf("%d kills, %d reverts, generation %d", rounds*killsPerRound, rounds, deployment.Generation)
}
