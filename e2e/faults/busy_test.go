package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

const flow = "slipway-agent-squeezed"

// squeeze leaves the agent's user that many shares of the API server, and has it answer 429 to what is more, by its own
// priority and fairness.
func (s story) squeeze(shares int32) {
	s.Helper()
	none := int32(0)
	levels, schemas := shared.clients.FlowcontrolV1().PriorityLevelConfigurations(), shared.clients.FlowcontrolV1().FlowSchemas()
	level := &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: flow},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: &shares, LendablePercent: &none, BorrowingLimitPercent: &none,
			LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
		}},
	}
	_, err := levels.Create(s.Context(), level, metav1.CreateOptions{})
	s.must(err)
	everything := []string{"*"}
	_, err = schemas.Create(s.Context(), &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: flow},
		Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: flow}, MatchingPrecedence: 100,
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:         []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: world.AgentUser}}},
				ResourceRules:    []flowcontrolv1.ResourcePolicyRule{{Verbs: everything, APIGroups: everything, Resources: everything, ClusterScope: true, Namespaces: everything}},
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: everything, NonResourceURLs: everything}},
			}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
}

func (s story) release() {
	s.Helper()
	ctx := context.WithoutCancel(s.Context())
	for _, err := range []error{
		shared.clients.FlowcontrolV1().FlowSchemas().Delete(ctx, flow, metav1.DeleteOptions{}),
		shared.clients.FlowcontrolV1().PriorityLevelConfigurations().Delete(ctx, flow, metav1.DeleteOptions{}),
	} {
		if !apierrors.IsNotFound(err) {
			s.must(err)
		}
	}
}

// refused waits until the API server refuses the agent's user something: some of that many at once.
func (s story) refused(atOnce int) {
	s.Helper()
	kubeconfig, err := shared.Cluster.UserKubeconfig(world.AgentUser)
	s.must(err)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	s.must(err)
	config.QPS = -1
	client := kubernetes.NewForConfigOrDie(config)
	s.eventually(func() error {
		var group sync.WaitGroup
		answers := make([]error, atOnce)
		for i := range atOnce {
			group.Go(func() {
				answers[i] = client.CoreV1().RESTClient().Get().AbsPath("/api/v1/configmaps").MaxRetries(0).Do(s.Context()).Error()
			})
		}
		group.Wait()
		refused := 0
		for _, err := range answers {
			if apierrors.IsTooManyRequests(err) {
				refused++
			}
		}
		if refused == 0 {
			return fmt.Errorf("answers: %v", answers)
		}
		return nil
	})
}

// failing collects what Applications say whenever they are not well, until stop.
func (s story) failing() (stop func() []string) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	var lines []string
	events, err := shared.clients.CoreV1().Events(world.Namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Application,type=Warning"})
	s.must(err)
	done := make(chan struct{})
	since := time.Now().Add(-time.Second)
	go func() {
		defer close(done)
		for e := range events.ResultChan() {
			if event, is := e.Object.(*corev1.Event); is && event.LastTimestamp.Time.After(since) {
				lines = append(lines, event.InvolvedObject.Name+": "+event.Reason+": "+event.Message)
			}
		}
	}()
	return func() []string {
		cancel()
		<-done
		return lines
	}
}

// An API server that has too much to do answers 429. Nothing is lost by that, nobody fails, and it is not asked the more for it.
func TestTooManyRequests(t *testing.T) {
	s, other := story{T: t, name: "squeezed"}, story{T: t, name: "passer-by"}
	s.agent(world.AgentOptions{})
	start := s.commit("Start", append(append(s.declared(""), other.declared("")...), s.setting("settings", "one"), other.setting("settings", "one"))...)
	s.eventually(func() error { return shared.Ready(t.Context(), world.ClusterName, start) })
	s.has("settings", "one")
	other.has("settings", "one")

	s.squeeze(1)
	t.Cleanup(s.release)
	s.refused(10)
	began := time.Now()
	stop := s.failing()
	const crates = 150
	changes := []gitsource.Change{s.setting("settings", "two"), other.setting("settings", "two")}
	for i := range crates {
		changes = append(changes, s.setting(fmt.Sprintf("crate-%d", i), "full"))
	}
	s.commit("Many", changes...)
	var uids map[string]types.UID
	s.eventually(func() error {
		if uids = s.settings(); len(uids) != crates+1 {
			return fmt.Errorf("%d objects, want %d", len(uids), crates+1)
		}
		return nil
	})
	s.has("settings", "two")
	other.has("settings", "two")
	served, turned := s.counted(began)
	t.Logf("with one seat: %d objects in %.1f s, %d requests served, %d answered 429", crates, time.Since(began).Seconds(), served, turned)
	if turned == 0 || served > 6*crates || turned > 6*crates {
		t.Errorf("%d requests served and %d refused for %d objects", served, turned, crates)
	}

	// What happens meanwhile is seen, and put right: under the same squeeze.
	s.spoil("crate-7")
	s.must(shared.clients.CoreV1().ConfigMaps(s.name).Delete(t.Context(), "crate-8", metav1.DeleteOptions{}))
	s.commit("Meanwhile", s.setting("settings", "three"), s.without("crate-9"))
	delete(uids, "crate-9")
	s.eventually(func() error {
		now := s.settings()
		if len(now) != len(uids) || now["crate-8"] == uids["crate-8"] {
			return fmt.Errorf("%d objects, want %d", len(now), len(uids))
		}
		return errors.Join(s.is("settings", "three"), s.is("crate-7", "full"), s.is("crate-8", "full"))
	})
	s.has("settings", "three")
	other.has("settings", "two")
	now := s.settings()
	delete(now, "crate-8")
	delete(uids, "crate-8")
	if !maps.Equal(now, uids) {
		t.Error("objects were made anew")
	}
	for _, line := range stop() {
		// The API server asks for longer and longer waits, so that one of many requests may come to its end on the way. The
		// Application says so and tries again; others have nothing to say.
		t.Log(line)
		if !strings.HasPrefix(line, s.name+": ") {
			t.Errorf("another Application fails: %s", line)
		}
	}
	s.calm(began, "crate-9")
}

// counted are the requests that the API server served and refused the agent since a time.
func (s story) counted(since time.Time) (served, refused int) {
	s.Helper()
	requests, err := shared.Requests(since)
	s.must(err)
	for _, r := range requests {
		if r.Code == http.StatusTooManyRequests {
			refused++
		} else {
			served++
		}
	}
	return served, refused
}
