package operate

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const (
	atMost     = 90 * time.Second
	lease      = 4 * time.Second
	otherAgent = "slipway-agent-2" // a user of its own, so that the audit log tells who did what
	hookSecret = "what pushes are signed with"
	things     = 20
)

// bed is a world whose parts end with the test.
type bed struct {
	*testing.T
	*world.World
}

func newBed(t *testing.T, node cluster.NodeKind) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-operate-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(t.Context(), world.Options{Dir: dir, Node: node, AuditLog: true, Log: t.Output()})
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
	return &bed{T: t, World: w}
}

func (b *bed) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bed) eventually(f func() error) {
	b.Helper()
	b.must(world.Eventually(b.Context(), atMost, f))
}

// address is a free one.
func (b *bed) address() string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	b.must(err)
	defer listener.Close()
	return listener.Addr().String()
}

// standIn is an agent that takes part in the election, with where it listens.
type standIn struct {
	*world.Process
	user, webhooks string
}

// standIn starts an agent and waits until it knows the cluster, leading or not.
func (b *bed) standIn(user, name string) standIn {
	b.Helper()
	health, webhooks := b.address(), b.address()
	process, err := b.StartAgent(b.Context(), world.AgentOptions{User: user, Name: name, Args: []string{
		"--leader-elect", "--lease-duration", lease.String(), "--health-address", health, "--webhook-address", webhooks,
	}})
	b.must(err)
	b.eventually(func() error { return answers("http://" + health + "/readyz") })
	return standIn{process, user, webhooks}
}

// answers fails unless a URL answers 200.
func answers(url string) error {
	answer, err := http.Get(url) //nolint:noctx,gosec // of a process of this test
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: HTTP %d", url, answer.StatusCode)
	}
	return nil
}

// grant gives another user the rights of the agent's.
func (b *bed) grant(user string) {
	b.Helper()
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}
	b.must(b.Kube.Create(b.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "slipway-agent"},
	}))
	b.must(b.Kube.Create(b.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: user}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "slipway-agent"},
	}))
}

// followByHooks has pushes come in by webhook alone, besides the look that each new leader takes.
func (b *bed) followByHooks() {
	b.Helper()
	b.must(b.Kube.Create(b.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "hook"}, StringData: map[string]string{"token": hookSecret},
	}))
	source := &v1alpha1.GitSource{ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "fleet"}}
	b.must(b.Kube.Patch(b.Context(), source, client.RawPatch("application/merge-patch+json",
		[]byte(`{"spec":{"interval":"1h","webhook":{"kind":"generic","secretRef":{"name":"hook"}}}}`))))
}

// push sends a webhook to one agent.
func (b *bed) push(to standIn) {
	b.Helper()
	const body = "something moved"
	request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+to.webhooks+"/v1/hooks/fleet", strings.NewReader(body))
	b.must(err)
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write([]byte(body))
	request.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	answer, err := http.DefaultClient.Do(request)
	b.must(err)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		b.Fatalf("a webhook: HTTP %d", answer.StatusCode)
	}
}

// version are the things in a version, each an object.
func version(number int) []gitsource.Change {
	var text strings.Builder
	for i := range things {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: thing-%02d, namespace: default}\ndata: {version: \"%d\"}\n", i, number)
	}
	return []gitsource.Change{world.Write("clusters/demo/things.yaml", text.String())}
}

// stands waits until all things are there in a version.
func (b *bed) stands(number int) {
	b.Helper()
	b.eventually(func() error {
		var live corev1.ConfigMapList
		if err := b.Kube.List(b.Context(), &live, client.InNamespace("default")); err != nil {
			return err
		}
		count := 0
		for _, thing := range live.Items {
			if thing.Data["version"] == fmt.Sprint(number) {
				count++
			}
		}
		if count != things {
			return fmt.Errorf("%d of %d things are at version %d", count, things, number)
		}
		return nil
	})
}

// writes are the requests of an agent that change something, leases left out.
func (b *bed) writes(of string, since time.Time) []world.Request {
	b.Helper()
	all, err := b.RequestsOf(of, since)
	b.must(err)
	return slices.DeleteFunc(all, func(r world.Request) bool { return r.Verb == "get" || r.Verb == "list" })
}

// appliedOnce holds that an agent sent each of the things once since a time, besides what it had to heal.
func (b *bed) appliedOnce(by string, since time.Time, healed ...string) {
	b.Helper()
	count := map[string]int{}
	for _, r := range b.writes(by, since) {
		if r.Resource == "configmaps" {
			count[r.Name]++
		}
	}
	for i := range things {
		if name := fmt.Sprintf("thing-%02d", i); count[name] != 1 && !slices.Contains(healed, name) {
			b.Errorf("%s applied %s %d times, want once", by, name, count[name])
		}
	}
}

// holder is whom the lease names.
func (b *bed) holder(ctx context.Context) string {
	var l coordinationv1.Lease
	if err := b.Kube.Get(ctx, client.ObjectKey{Namespace: world.Namespace, Name: "slipway-agent"}, &l); err != nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// ended waits until a process has ended by itself.
func (b *bed) ended(p standIn) {
	b.Helper()
	select {
	case <-p.Done():
		if p.Killed() {
			b.Errorf("%s was killed", p.Name)
		}
	case <-time.After(atMost):
		b.Errorf("%s goes on without the lease; see %s", p.Name, p.Log)
	}
}

// TestTakeover: of two agents one works. The other one takes over when the first is killed, and again when the second stands
// still; whoever has lost the lease changes nothing more.
func TestTakeover(t *testing.T) {
	b := newBed(t, cluster.NodeNone)
	tip, err := b.Commit(t.Context(), "Start", version(1)...)
	b.must(err)
	b.must(b.Install(t.Context()))
	b.grant(otherAgent)
	b.followByHooks()
	first := b.standIn(world.AgentUser, "agent-1")
	b.must(b.WaitReady(t.Context(), atMost, tip, world.ClusterName))
	second := b.standIn(otherAgent, "agent-2")

	tip, err = b.Commit(t.Context(), "Go on", version(2)...)
	b.must(err)
	pushed := time.Now()
	b.push(second)
	b.stands(2)
	b.must(b.WaitReady(t.Context(), atMost, tip, world.ClusterName))
	b.appliedOnce(first.user, pushed)
	for _, r := range b.writes(second.user, time.Time{}) {
		if r.String() != "patch gitsources slipway-system/fleet" {
			t.Errorf("the agent that waits: %s", r)
		}
	}

	was, killed := b.holder(t.Context()), time.Now()
	first.Kill()
	tip, err = b.Commit(t.Context(), "Change while nobody leads", version(3)...)
	b.must(err)
	var took time.Duration
	b.eventually(func() error {
		if now := b.holder(t.Context()); now == "" || now == was {
			return errors.New("nobody has taken over")
		}
		took = time.Since(killed)
		return nil
	})
	b.stands(3)
	applied := time.Since(killed)
	b.must(b.WaitReady(t.Context(), atMost, tip, world.ClusterName))
	t.Logf("lease of %s: taken over %.1f s after kill -9, everything applied after %.1f s", lease, took.Seconds(), applied.Seconds())
	if took > 2*lease {
		t.Errorf("taken over after %s, with a lease of %s", took, lease)
	}
	b.appliedOnce(second.user, killed)

	third := b.standIn(world.AgentUser, "agent-3")
	was = b.holder(t.Context())
	b.must(second.Freeze())
	frozen := time.Now()
	tip, err = b.Commit(t.Context(), "Change while the leader stands still", version(4)...)
	b.must(err)
	b.stands(4)
	b.must(b.WaitReady(t.Context(), atMost, tip, world.ClusterName))
	if now := b.holder(t.Context()); now == was {
		t.Fatal("the frozen agent holds the lease still")
	}
	b.must(b.Kube.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "thing-00"}}))
	b.must(second.Thaw())
	b.ended(second)
	if late := b.writes(second.user, frozen); len(late) > 0 {
		t.Errorf("an agent without the lease has changed something: %v", late)
	}
	b.stands(4)
	b.appliedOnce(third.user, frozen, "thing-00")
}
