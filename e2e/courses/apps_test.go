package courses

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const delivery = `apiVersion: slipway.dev/v1alpha1
kind: Delivery
environments:
  - {name: production, path: "apps/{app}/production", promote: {by: commit}}
`

const declared = `apiVersion: v1
kind: Namespace
metadata: {name: $APP}
---
apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: $APP, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/$APP/production
  environment: production
`

const workload = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {GREETING: hello}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, envFrom: [{configMapRef: {name: settings}}]}]}
---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {name: web}
`

const route = `  routes: [{name: web}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`

// Strategies. Each comes with what of $DEADLINE and $LIMITS a test wants of it.
const (
	bounded = `{name: $NAME, interval: 1s, count: $COUNT, $LIMITS, range: {max: 5, query: 'load{app="{{namespace}}",of="$NAME"}'}}`
	// compared is by counters of both versions.
	compared = `{name: errors, interval: 1s, count: $COUNT, $LIMITS, errors: {minSamples: 100,
      total: 'requests_total{app="{{namespace}}",of="all",via=~"{{service}}"}', bad: 'requests_total{app="{{namespace}}",of="bad",via=~"{{service}}"}'}}`
	rolling = `{rolling: {progressDeadline: $DEADLINE}}`
	// routes goes by header first.
	routes = `{canary: {progressDeadline: $DEADLINE, steps: [{header: {name: x-canary, value: "yes"}}, {pause: {for: 1s}}, {header: {}},
      {weight: 25}, {analysis: [$AFTER]}, {weight: 60}]}}`
	pods      = `{canary: {progressDeadline: $DEADLINE, steps: [{weight: 25}, {pause: {for: 1s}}, {analysis: [$AFTER]}, {weight: 50}]}}`
	batches   = `{rolling: {progressDeadline: $DEADLINE, batches: [{percent: 25, pause: {for: 1s}}, {percent: 50, analysis: [$AFTER]}]}}`
	blueGreen = `{blueGreen: {progressDeadline: $DEADLINE, before: [$BEFORE], after: [$AFTER], scaleDownDelay: 2s}}`
)

// app is one Application with a Rollout, its folder in Git and its namespace, which have the same name.
type app struct {
	name, strategy string
	routed         bool   // by an HTTPRoute
	ordinal        bool   // a StatefulSet
	deadline       string // default 90s
	count          int    // of looks; default 2
	limits         string // of metrics; default: patience for a whole test
}

// files of the app, at an image.
func (a app) files(image string) []gitsource.Change {
	shared.dials.add(a.name)
	limits, deadline, count := "consecutiveErrorLimit: 200, inconclusiveLimit: 200", "90s", 2
	if a.limits != "" {
		limits = a.limits
	}
	if a.deadline != "" {
		deadline = a.deadline
	}
	if a.count != 0 {
		count = a.count
	}
	strategy := strings.NewReplacer("$AFTER", strings.ReplaceAll(bounded, "$NAME", "after"), "$BEFORE", strings.ReplaceAll(bounded, "$NAME", "before")).Replace(a.strategy)
	strategy = strings.NewReplacer("$LIMITS", limits, "$DEADLINE", deadline, "$COUNT", fmt.Sprint(count)).Replace(strategy)
	content := workload + "  strategy: " + strategy + "\n"
	if !strings.Contains(a.strategy, "rolling") {
		content += "  services: [{name: web}]\n"
	}
	if a.routed {
		content += route
	}
	if a.ordinal {
		content = strings.NewReplacer("kind: Deployment", "kind: StatefulSet", "replicas: 4", "replicas: 4\n  serviceName: web",
			"workloadRef: {name: web}", "workloadRef: {kind: StatefulSet, name: web}").Replace(content)
	}
	return []gitsource.Change{
		world.Write("clusters/demo/"+a.name+".yaml", strings.ReplaceAll(declared, "$APP", a.name)),
		world.Write("apps/"+a.name+"/base/kustomization.yaml", "resources: [web.yaml]\n"),
		world.Write("apps/"+a.name+"/base/web.yaml", content),
		a.use(image, ""),
	}
}

// use is the change that puts an image into production, with more lines of its kustomization.
func (a app) use(image, more string) gitsource.Change {
	repository, digest, _ := strings.Cut(image, "@")
	return world.Write(a.kustomization(), "namespace: "+a.name+"\nresources: [../base]\nimages:\n  - name: web\n    newName: "+repository+"\n    digest: "+digest+"\n"+more)
}

func (a app) kustomization() string { return "apps/" + a.name + "/production/kustomization.yaml" }

// story is what a test tells of one app.
type story struct {
	*testing.T
	app
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

// commit brings in the same for several apps at once.
func commit(t *testing.T, message string, changes ...gitsource.Change) gitsource.ObjectID {
	t.Helper()
	id, err := shared.Commit(t.Context(), message, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// begin brings in apps with the good image, and waits until an agent that runs has them healthy.
func begin(t *testing.T, apps ...app) {
	t.Helper()
	var files []gitsource.Change
	for _, a := range apps {
		files = append(files, a.files(shared.good)...)
	}
	commit(t, "Start "+t.Name(), files...)
	for _, a := range apps {
		story{t, a}.runs(shared.good)
	}
}

// promote puts an image into production of several apps by one commit.
func promote(t *testing.T, image string, apps ...app) gitsource.ObjectID {
	t.Helper()
	var files []gitsource.Change
	for _, a := range apps {
		files = append(files, a.use(image, ""))
	}
	return commit(t, "Promote for "+t.Name(), files...)
}

func (s story) rollout() (*v1alpha1.Rollout, error) {
	var rollout v1alpha1.Rollout
	err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: "web"}, &rollout)
	return &rollout, err
}

// at fails unless the Rollout is at a step, counted from one, in a phase.
func (s story) at(step int, phase v1alpha1.RolloutPhase) error {
	rollout, err := s.rollout()
	if err != nil {
		return err
	}
	if course := rollout.Status.Course; rollout.Status.Phase != phase || course == nil || int(course.Step)+1 != step {
		return fmt.Errorf("%s is %s with course %+v, want %s at step %d", s.name, rollout.Status.Phase, course, phase, step)
	}
	return nil
}

// says fails unless the Rollout waits for a reason.
func (s story) says(reason string) error {
	rollout, err := s.rollout()
	if err != nil {
		return err
	}
	if v := rollout.Status.Verdict; rollout.Status.Phase != v1alpha1.PhasePaused || v == nil || v.Outcome != v1alpha1.VerdictInconclusive || v.Reason != reason {
		return fmt.Errorf("%s is %s with verdict %+v, want it to wait for %s", s.name, rollout.Status.Phase, v, reason)
	}
	return nil
}

// runs waits until an image runs in full and nothing beside it, traffic goes as Git says, and all that looks after it is at
// rest.
func (s story) runs(image string) {
	s.Helper()
	s.eventually(func() error {
		return errors.Join(s.everywhere(image), s.alone(), s.asInGit(), s.atRest(), shared.Ready(s.Context(), s.name, ""))
	})
}

// everywhere fails unless all pods are of an image.
func (s story) everywhere(image string) error {
	if !s.ordinal {
		return shared.Deployment(s.Context(), s.name, "web", image)
	}
	var set appsv1.StatefulSet
	if err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: "web"}, &set); err != nil {
		return err
	}
	rolls := set.Spec.UpdateStrategy.RollingUpdate
	switch got := set.Spec.Template.Spec.Containers[0].Image; {
	case got != image:
		return fmt.Errorf("%s: the StatefulSet asks for %s, want %s", s.name, got, image)
	case set.Status.ObservedGeneration != set.Generation || set.Status.AvailableReplicas != 4 || set.Status.CurrentRevision != set.Status.UpdateRevision:
		return fmt.Errorf("%s: the StatefulSet is not there yet: %+v", s.name, set.Status)
	case rolls != nil && rolls.Partition != nil && *rolls.Partition != 0:
		return fmt.Errorf("%s: the partition is %d", s.name, *rolls.Partition)
	}
	return nil
}

// alone fails while something is beside stable, or pods of another version are.
func (s story) alone() error {
	var left []string
	for _, kind := range []string{"apps/v1 Deployment", "v1 Service", "v1 ConfigMap", "v1 Secret"} {
		version, kind, _ := strings.Cut(kind, " ")
		list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: version, Kind: kind + "List"}}
		if err := shared.Kube.List(s.Context(), list, client.InNamespace(s.name), client.HasLabels{manifests.LabelCanary}); err != nil {
			return err
		}
		for i := range list.Items {
			left = append(left, kind+" "+list.Items[i].Name)
		}
	}
	var running corev1.PodList
	if err := shared.Kube.List(s.Context(), &running, client.InNamespace(s.name)); err != nil {
		return err
	}
	copies := 0
	if s.ordinal { // of the ConfigMap that pods use
		copies = 1
	}
	if len(running.Items) != 4 || len(left) != copies {
		return fmt.Errorf("%s: %d pods, and beside stable there are %v", s.name, len(running.Items), left)
	}
	return nil
}

// asInGit fails unless the Service and the Route are as in Git.
func (s story) asInGit() error {
	var service corev1.Service
	if err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: "web"}, &service); err != nil {
		return err
	}
	if len(service.Spec.Selector) != 1 || service.Annotations[manifests.AnnotationTraffic] != "" {
		return fmt.Errorf("%s: the Service selects %v", s.name, service.Spec.Selector)
	}
	if !s.routed {
		return nil
	}
	live := &unstructured.Unstructured{}
	live.SetAPIVersion("gateway.networking.k8s.io/v1")
	live.SetKind("HTTPRoute")
	if err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: "web"}, live); err != nil {
		return err
	}
	rules, _, _ := unstructured.NestedSlice(live.Object, "spec", "rules")
	if text := fmt.Sprint(rules); len(rules) != 1 || strings.Contains(text, "web-") || live.GetAnnotations()[manifests.AnnotationTraffic] != "" {
		return fmt.Errorf("%s: the Route sends to %s", s.name, text)
	}
	return nil
}

// atRest fails unless Rollout and Application have nothing left to do, and agree with Git.
func (s story) atRest() error {
	rollout, err := s.rollout()
	if err != nil {
		return err
	}
	status := rollout.Status
	if status.Phase != v1alpha1.PhaseHealthy || status.Course != nil || status.Target == nil || status.Stable == nil ||
		*status.Target != *status.Stable || status.AppliedBundle != status.Target.Digest {
		return fmt.Errorf("%s: the Rollout is not at rest: %+v", s.name, status)
	}
	application, err := shared.Application(s.Context(), s.name)
	if err != nil {
		return err
	}
	known := application.Status
	if known.Applied == nil || known.Healthy == nil || known.Applied.SetDigest != known.Healthy.SetDigest || len(known.Marks) > 0 || known.RevertRequest != nil {
		return fmt.Errorf("%s: the Application is not at rest: applied %+v, healthy %+v, %d marks", s.name, known.Applied, known.Healthy, len(known.Marks))
	}
	return nil
}

// reverts are the commits that revert something for the app.
func (s story) reverts() []gitsource.Commit {
	s.Helper()
	commits, err := shared.Log(s.Context(), 1000)
	s.must(err)
	return slices.DeleteFunc(commits, func(c gitsource.Commit) bool {
		return len(trailer.Parse(c.Message).Reverts) == 0 || !strings.HasPrefix(c.Message, "Revert "+s.name+" ")
	})
}

// stays holds that a good version is there to stay: it has not failed, and nobody has reverted it.
func (s story) stays(image string) {
	s.Helper()
	s.runs(image)
	if n := len(s.reverts()); n != 0 {
		s.Errorf("%s: %d reverts of a good version", s.name, n)
	}
	if why := shared.seen.failed(s.name); why != "" {
		s.Errorf("%s: a good version has failed: %s", s.name, why)
	}
}

// comesBack holds that a bad image was taken back by one commit, and that it had no more traffic after its verdict.
func (s story) comesBack(bad gitsource.ObjectID, image string) {
	s.Helper()
	of := func(c gitsource.Commit) bool { return slices.Contains(trailer.Parse(c.Message).Reverts, bad) }
	s.eventually(func() error {
		if !slices.ContainsFunc(s.reverts(), of) {
			rollout, err := s.rollout()
			return errors.Join(fmt.Errorf("%s is not reverted; its Rollout is %+v", s.name, rollout.Status), err)
		}
		return nil
	})
	s.runs(shared.good)
	reverts := slices.DeleteFunc(s.reverts(), func(c gitsource.Commit) bool { return !of(c) })
	if len(reverts) != 1 || trailer.Parse(reverts[0].Message).Verdict == "" {
		s.Errorf("%s: %d reverts, the newest\n%s", s.name, len(reverts), reverts[0].Message)
	}
	content, err := shared.File(s.Context(), s.kustomization())
	s.must(err)
	if want := string(s.use(shared.good, "").Content); content != want {
		s.Errorf("%s: in Git stands\n%s\nwant\n%s", s.name, content, want)
	}
	_, digest, _ := strings.Cut(image, "@")
	if hold, err := shared.File(s.Context(), environment.HoldPath("production", s.name)); err != nil || strings.Count(hold, digest) != 1 {
		s.Errorf("%s: the bad image is not held once: %v %s", s.name, err, hold)
	}
	if s.ordinal { // traffic goes to all pods, also to those that are not replaced yet
		return
	}
	for _, line := range shared.seen.relapses(s.name, image) {
		s.Errorf("%s: %s", s.name, line)
	}
}

// annotate says something as a person; nil takes it back.
func (s story) annotate(key string, value any) error {
	var text any
	if value != nil {
		said, err := json.Marshal(value)
		if err != nil {
			return err
		}
		text = string(said)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: text}}})
	if err != nil {
		return err
	}
	live, err := s.rollout()
	if err != nil {
		return err
	}
	return shared.Kube.Patch(s.Context(), live, client.RawPatch(types.MergePatchType, patch), client.FieldOwner("robin"))
}

// approve lets a Rollout go on from where it stands.
func (s story) approve() error {
	live, err := s.rollout()
	if err != nil {
		return err
	}
	answers := live.Status.Course.Since.Time
	if live.Status.Verdict != nil {
		answers = live.Status.Verdict.At.Time
	}
	return s.annotate(manifests.AnnotationApproved, v1alpha1.StepApproval{
		Bundle: live.Status.Target.Digest, Step: int(live.Status.Course.Step), Answers: answers, At: time.Now().UTC(), By: "robin",
	})
}
