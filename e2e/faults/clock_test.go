package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// deadline is long enough for one agent to begin and another to go on, and short against the clocks' difference.
const deadline = 20 * time.Second

// workload is a Deployment that never gets its replicas as long as an image is not there; with a Rollout if asked for.
func (s story) workload(image string, rollout bool) gitsource.Change {
	text := `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "` + image + `"}]}
`
	if rollout {
		text += `---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {name: web}
  strategy: {rolling: {progressDeadline: ` + deadline.String() + `}}
`
	}
	return world.Write("apps/"+s.name+"/web.yaml", text)
}

// dated pushes a commit whose author's clock is wrong by so much.
func (s story) dated(wrong time.Duration, message string, changes ...gitsource.Change) gitsource.ObjectID {
	s.Helper()
	tip, err := shared.Tip(s.Context())
	s.must(err)
	tree, err := shared.Repo.WriteTree(tip, changes)
	s.must(err)
	who := world.Person()
	who.When = who.When.Add(wrong)
	id, err := shared.Repo.Commit(gitsource.NewCommit{Tree: tree, Message: message, Author: who, Committer: who, Parents: []gitsource.ObjectID{tip}})
	s.must(err)
	s.must(shared.Repo.Push(s.Context(), "refs/heads/"+world.Branch, tip, id))
	return id
}

// One agent begins, and dies; another goes on, whose clock is hours away from the first one's and from the API server's. A new
// version has its whole time, and no more; so has an Application without a Rollout. Commits may be of tomorrow, or of yesterday.
func TestClocksThatDiffer(t *testing.T) {
	never, err := shared.Sample(t.Context(), "late", "never-ready")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ first, then, commits time.Duration }{
		"behind-then-ahead": {-time.Hour, 2 * time.Hour, 24 * time.Hour},
		"ahead-then-behind": {2 * time.Hour, -time.Hour, -24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s, plain := story{T: t, name: name}, story{T: t, name: "plain-" + name}
			agent := s.agent(world.AgentOptions{Clock: c.first})
			s.dated(c.commits, "Start", append(append(s.declared(""), plain.declared("  timeout: "+deadline.String()+"\n")...),
				s.workload(shared.ready, true), plain.workload(shared.ready, false), s.setting("settings", "one"), plain.setting("settings", "one"))...)
			s.has("settings", "one")
			plain.has("settings", "one")
			s.eventually(func() error { return shared.Deployment(t.Context(), s.name, "web", shared.ready) })

			began := time.Now()
			s.dated(-c.commits, "A version that never gets ready", s.workload(never, true), plain.workload(never, false))
			s.eventually(func() error { return s.started(never) })
			s.eventually(func() error { return plain.waiting(v1alpha1.ReasonProgressing) })
			agent.Kill()
			agent = s.agent(world.AgentOptions{Clock: c.then})

			s.eventually(func() error { return plain.waiting(v1alpha1.ReasonHealthTimeout) })
			s.after("the Application's timeout", began)
			s.eventually(func() error { return s.waiting(v1alpha1.ReasonMarked) })
			s.after("the Rollout's deadline", began)
			s.eventually(func() error { return shared.Deployment(t.Context(), s.name, "web", shared.ready) })
			s.dated(0, "Good again", s.workload(shared.ready, true), plain.workload(shared.ready, false), s.setting("settings", "two"))
			s.has("settings", "two")
			plain.has("settings", "one")
			agent.Kill()
		})
	}
}

// after holds that a deadline which began to run after a moment was over not before its time. That it is over at all, within the
// patience of a test, shows that nobody waits for the clocks' difference.
func (s story) after(what string, began time.Time) {
	s.Helper()
	const inexact = 4 * time.Second // what clocks may differ by before one is set
	if took := time.Since(began); took < deadline-inexact {
		s.Errorf("%s of %s was over after %s", what, deadline, took)
	}
}

// started fails unless the Rollout is under way with an image.
func (s story) started(image string) error {
	var rollout v1alpha1.Rollout
	if err := shared.Kube.Get(s.Context(), types.NamespacedName{Namespace: s.name, Name: "web"}, &rollout); err != nil {
		return err
	}
	if rollout.Status.Phase != v1alpha1.PhaseProgressing {
		return fmt.Errorf("rollout %s is %s", s.name, rollout.Status.Phase)
	}
	out, err := shared.Cluster.Kubectl(s.Context(), "get", "deployment", "-n", s.name, "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	if err == nil && out != image {
		err = fmt.Errorf("the image is %s", out)
	}
	return err
}

// waiting fails unless the Application has a reason not to be Ready.
func (s story) waiting(reason string) error {
	app, err := shared.Application(s.Context(), s.name)
	if err != nil {
		return err
	}
	if c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Reason != reason {
		return fmt.Errorf("%s: %+v, want reason %s", s.name, c, reason)
	}
	return nil
}

// A lease is judged by whether it is renewed, never by the time that its holder writes into it.
func TestLeaseOfAnotherClock(t *testing.T) {
	const lease = 3 * time.Second
	leases := shared.clients.CoordinationV1().Leases(world.Namespace)
	for name, wrong := range map[string]time.Duration{"holder-behind": -time.Hour, "holder-ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := story{T: t, name: name}
			holder, seconds := "another agent", int32(lease.Seconds())
			renewed := func() *metav1.MicroTime { return &metav1.MicroTime{Time: time.Now().Add(wrong)} }
			held, err := leases.Create(t.Context(), &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Name: "slipway-agent"},
				Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: renewed(), RenewTime: renewed()},
			}, metav1.CreateOptions{})
			s.must(err)
			t.Cleanup(func() {
				s.must(leases.Delete(context.WithoutCancel(s.Context()), "slipway-agent", metav1.DeleteOptions{}))
			})
			agent := s.agent(world.AgentOptions{Args: []string{"--leader-elect", "--lease-duration", lease.String()}})
			tick := time.NewTicker(lease / 6)
			defer tick.Stop()
			for until := time.Now().Add(4 * lease); time.Now().Before(until); { // alive: the agent has to wait
				<-tick.C
				held.Spec.RenewTime = renewed()
				held, err = leases.Update(t.Context(), held, metav1.UpdateOptions{}) // a conflict if the agent has taken it
				s.must(err)
			}
			if text, err := os.ReadFile(agent.Log); err != nil || strings.Contains(string(text), "Starting workers") {
				t.Errorf("the agent works although another one holds the lease, %v:\n%s", err, text)
			}
			died := time.Now()
			s.eventually(func() error {
				now, err := leases.Get(t.Context(), "slipway-agent", metav1.GetOptions{})
				if err == nil && *now.Spec.HolderIdentity == holder {
					err = errors.New("the dead one still holds the lease")
				}
				return err
			})
			t.Logf("taken over %.1f s after the last renewal", time.Since(died).Seconds())
			agent.Kill()
		})
	}
}
