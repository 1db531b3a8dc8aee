package faults

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const atMost = 2 * time.Minute

// shared is the one cluster and Git host; each test has agents of its own, one after the other.
var shared struct {
	*world.World
	clients *kubernetes.Clientset
	ready   string // an image that works
}

func TestMain(m *testing.M) {
	flag.Parse()
	o := world.Options{Node: cluster.NodeKwok, AuditLog: true}
	os.Exit(world.RunTests(m, "faults", 30*time.Minute, o, func(ctx context.Context, w *world.World) (err error) {
		shared.World, shared.clients = w, kubernetes.NewForConfigOrDie(w.Cluster.RESTConfig())
		shared.ready, err = w.Sample(ctx, "1", "ready")
		return err
	}))
}

// story is one Application, its folder in Git and its namespace, which have the same name.
type story struct {
	*testing.T
	name   string
	source string // GitSource; empty for that of the environment repo
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s story) eventually(f func() error) {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, f))
}

// agent starts one that ends with the test, unless it is killed before. Those of one story have one cache.
func (s story) agent(o world.AgentOptions) *world.Process {
	s.Helper()
	o.Name = "agent-" + s.name
	agent, err := shared.StartAgent(s.Context(), o)
	s.must(err)
	s.Cleanup(agent.Kill)
	return agent
}

func (s story) commit(message string, changes ...gitsource.Change) gitsource.ObjectID {
	s.Helper()
	id, err := shared.Commit(s.Context(), message, changes...)
	s.must(err)
	return id
}

// declared are the files of an Application and its namespace; more are lines of its spec, with an indent of two.
func (s story) declared(more string) []gitsource.Change {
	return []gitsource.Change{
		world.Write("clusters/demo/"+s.name+"-namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+s.name+"}\n"),
		world.Write("clusters/demo/"+s.name+".yaml", fmt.Sprintf(`apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: %s, namespace: slipway-system}
spec:
  path: apps/%[1]s
  targetNamespace: %[1]s
  sourceRef: {name: %s}
%s`, s.name, cmp.Or(s.source, "fleet"), more)),
	}
}

// setting is the file of a ConfigMap with a value.
func (s story) setting(name, value string) gitsource.Change {
	return world.Write("apps/"+s.name+"/"+name+".yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+"}\ndata: {value: "+value+"}\n")
}

func (s story) without(name string) gitsource.Change {
	return world.Remove("apps/" + s.name + "/" + name + ".yaml")
}

// is fails unless the setting has a value.
func (s story) is(name, value string) error {
	found, err := shared.clients.CoreV1().ConfigMaps(s.name).Get(s.Context(), name, metav1.GetOptions{})
	if err == nil && found.Data["value"] != value {
		err = fmt.Errorf("%s of %s is %q, want %q", name, s.name, found.Data["value"], value)
	}
	return err
}

// has waits until the setting has a value and the Application is Ready.
func (s story) has(name, value string) {
	s.Helper()
	s.eventually(func() error { return errors.Join(s.is(name, value), shared.Ready(s.Context(), s.name, "")) })
}

// spoil changes a setting as a person would.
func (s story) spoil(name string) {
	s.Helper()
	_, err := shared.clients.CoreV1().ConfigMaps(s.name).Patch(s.Context(), name, types.MergePatchType,
		[]byte(`{"data":{"value":"spoiled"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	s.must(err)
}

// settings are the UIDs of all that the Application made of that kind, by name.
func (s story) settings() map[string]types.UID {
	s.Helper()
	found, err := shared.clients.CoreV1().ConfigMaps(s.name).List(s.Context(), metav1.ListOptions{LabelSelector: "slipway.dev/application=" + s.name})
	s.must(err)
	uids := map[string]types.UID{}
	for _, item := range found.Items {
		uids[item.Name] = item.UID
	}
	return uids
}

// calm holds that nothing of the story was deleted, and nothing reverted, since a time; others may be named that were to go.
func (s story) calm(since time.Time, gone ...string) {
	s.Helper()
	requests, err := shared.Requests(since)
	s.must(err)
	for _, r := range world.Only(requests, "delete") {
		if r.Code < 300 && !strings.Contains(" "+strings.Join(gone, " ")+" ", " "+r.Name+" ") {
			s.Errorf("the agent sent %s", r)
		}
	}
	commits, err := shared.Log(s.Context(), 50)
	s.must(err)
	for _, c := range commits {
		if strings.Contains(c.Message, "Slipway-Reverts") && c.Committer.When.After(since) {
			s.Errorf("reverted: %s", c.Message)
		}
	}
}

// sourceSays waits until the GitSource says all of words in its condition Ready.
func (s story) sourceSays(source string, words ...string) {
	s.Helper()
	s.eventually(func() error {
		var found v1alpha1.GitSource
		if err := shared.Kube.Get(s.Context(), types.NamespacedName{Namespace: world.Namespace, Name: source}, &found); err != nil {
			return err
		}
		for _, c := range found.Status.Conditions {
			if c.Type != v1alpha1.ConditionReady || c.Status != metav1.ConditionFalse {
				continue
			}
			for _, word := range words {
				if !strings.Contains(c.Message, word) {
					return fmt.Errorf("gitsource %s: %q does not say %q", source, c.Message, word)
				}
			}
			return nil
		}
		return fmt.Errorf("gitsource %s is Ready: %+v", source, found.Status)
	})
}
