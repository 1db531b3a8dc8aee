package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// While the agent stands still its watches are cut, and etcd forgets what it would have been told. It reads anew: what was
// changed and deleted in between is put right, and nothing that it did not see is taken for gone.
func TestCompactionDuringWatches(t *testing.T) {
	s := story{T: t, name: "forgotten"}
	agent := s.agent(world.AgentOptions{})
	s.commit("Start", append(s.declared(""), s.setting("settings", "one"), s.setting("calm", "ours"), s.setting("lost", "ours"))...)
	s.has("settings", "one")
	s.has("lost", "ours")
	before := s.settings()
	list, err := shared.clients.CoreV1().ConfigMaps(s.name).List(t.Context(), metav1.ListOptions{})
	s.must(err)

	began := time.Now()
	s.must(agent.Freeze())
	s.spoil("settings")
	s.must(shared.clients.CoreV1().ConfigMaps(s.name).Delete(t.Context(), "lost", metav1.DeleteOptions{}))
	for i := range 50 { // so that much lies in between
		_, err := shared.clients.CoreV1().ConfigMaps("shared").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("noise-%d", i)}}, metav1.CreateOptions{})
		s.must(err)
	}
	s.must(shared.Cluster.Kill("kube-apiserver"))
	s.must(shared.Cluster.Compact(t.Context()))
	s.must(shared.Cluster.StartRole(t.Context(), "kube-apiserver"))
	s.must(shared.Cluster.WaitReady(t.Context()))
	s.eventually(func() error { return s.expired(list.ResourceVersion) })
	s.must(agent.Thaw())

	s.has("settings", "one")
	s.has("lost", "ours")
	after := s.settings()
	if after["lost"] == before["lost"] {
		t.Error("lost was never deleted")
	}
	delete(before, "lost")
	delete(after, "lost")
	if !maps.Equal(before, after) {
		t.Errorf("objects %v, before %v", after, before)
	}
	// The watches are back: the next change is seen by them alone.
	s.spoil("calm")
	s.has("calm", "ours")
	s.commit("Go on", s.setting("settings", "two"))
	s.has("settings", "two")
	s.calm(began)
}

// expired fails unless whoever watches from a revision is told that it is gone.
func (s story) expired(revision string) error {
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
	defer cancel()
	watching, err := shared.clients.CoreV1().ConfigMaps(s.name).Watch(ctx, metav1.ListOptions{ResourceVersion: revision})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer watching.Stop()
	event, some := <-watching.ResultChan()
	if some && event.Type == watch.Error {
		if err := apierrors.FromObject(event.Object); apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return nil
		}
	}
	return fmt.Errorf("a watch from %s begins with %+v", revision, event)
}

// The agent dies after it has noted what it will own and before its first request, for the first time of an Application and
// in the middle of its life. Whoever comes next finishes, and also what Git has taken back by then.
func TestKilledBeforeTheFirstApply(t *testing.T) {
	s := story{T: t, name: "young"}
	s.commit("Start", append(s.declared(""), s.setting("settings", "one"), s.setting("old", "ours"))...)
	s.dies() // before the Application itself is created
	agent := s.agent(world.AgentOptions{})
	s.has("settings", "one")
	s.has("old", "ours")
	before := s.settings()
	agent.Kill()

	began := time.Now()
	s.commit("Another", s.setting("settings", "two"), s.setting("new", "ours"), s.setting("brief", "ours"), s.without("old"))
	s.dies()
	if now := s.settings(); !maps.Equal(now, before) {
		t.Errorf("killed before the first request, and there is %v, before %v", now, before)
	}
	if err := errors.Join(s.listed("new"), s.listed("brief"), s.listed("old")); err != nil {
		t.Error(err) // else nobody would know of what an apply that broke off has left
	}
	s.commit("Take one back", s.without("brief"))
	s.agent(world.AgentOptions{})
	s.has("settings", "two")
	s.has("new", "ours")
	s.eventually(func() error {
		if s.listed("old") == nil || s.listed("brief") == nil || len(s.settings()) != 2 {
			return fmt.Errorf("there is %v", s.settings())
		}
		return nil
	})
	if now := s.settings(); now["settings"] != before["settings"] {
		t.Error("settings were made anew")
	}
	s.calm(began, "old", "brief") // what stood when the next agent began may be applied before it has looked whether there is more
}

// dies starts an agent that is killed before its first request, and waits for that.
func (s story) dies() {
	s.Helper()
	agent := s.agent(world.AgentOptions{Failpoint: "before-first-apply"})
	select {
	case <-agent.Done():
		if !agent.Killed() {
			s.Fatalf("the agent ended by itself; see %s", agent.Log)
		}
	case <-time.After(atMost):
		s.Fatalf("the agent never came to the failpoint; see %s", agent.Log)
	}
}

// listed fails unless the Inventory has a setting.
func (s story) listed(name string) error {
	var inventory v1alpha1.Inventory
	if err := shared.Kube.Get(s.Context(), types.NamespacedName{Namespace: world.Namespace, Name: s.name + "-0"}, &inventory); err != nil {
		return err
	}
	for _, entry := range inventory.Spec.Entries {
		if entry.Name == name {
			return nil
		}
	}
	return fmt.Errorf("the Inventory does not list %s", name)
}
