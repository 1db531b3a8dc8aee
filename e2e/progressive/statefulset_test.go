package progressive

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
)

// byBatches brings a version in pod by pod.
const byBatches = `{rolling: {progressDeadline: 20s, batches: [{percent: 33, pause: {for: 2s}}, {percent: 66, pause: {for: 1s}}]}}`

// lock is an app whose pods have an ordinal each.
type lock struct{ story }

// asStatefulSet makes an app one with a StatefulSet.
func asStatefulSet(files []gitsource.Change) []gitsource.Change {
	for i := range files {
		if strings.HasSuffix(files[i].Path, "web.yaml") {
			files[i].Content = []byte(strings.NewReplacer(
				"kind: Deployment", "kind: StatefulSet", "replicas: 3", "replicas: 3\n  serviceName: web", "workloadRef: {name: web}", "workloadRef: {kind: StatefulSet, name: web}",
			).Replace(string(files[i].Content)))
		}
	}
	return files
}

// A StatefulSet takes a version in one pod after the other, and gives none up to one that never answers: its first pod is
// the only one that is ever lost, and stands in nobody's way when stable comes back.
func TestStatefulSet(t *testing.T) {
	p := newPort(t)
	s := lock{story{t, p, "lock"}}
	files, err := p.app(s.app, p.good, byBatches)
	s.must(err)
	_, err = s.Commit(s.Context(), "Begin "+s.app, asStatefulSet(files)...)
	s.must(err)
	s.eventually(func() error { return s.equals(p.good) })
	all := s.asked(40)

	mark := all.mark()
	s.promote(p.better)
	s.eventually(func() error { return s.equals(p.better) })
	got := all.since(mark)
	s.Logf("version 2 came in: %d answers, by version %v", len(got), got.by())
	if faults := got.faults(""); len(faults) > 0 || got.first("2").IsZero() || got.last("1").Before(got.first("2")) {
		s.Errorf("while version 2 came in people got %v, faults %v", got.by(), faults)
	}

	sinking, err := cluster.BuildImage(s.Context(), p.Registry, cluster.ImageSpec{
		Binary: filepath.Join(p.Dir, "shop"), Repository: "shop", Tag: "sinking", Env: map[string]string{"SHOP_VERSION": "3", "SHOP_BEHAVIOUR": "crash"},
	})
	s.must(err)
	mark = all.mark()
	failed := s.failsAt()
	commit := s.promote(sinking)
	var verdict fails
	select {
	case verdict = <-failed:
	case <-time.After(atMost):
		s.Fatalf("no Fail; the Rollout is %+v", s.status())
	}
	revert := s.reverted(commit)
	s.eventually(func() error { return s.equals(p.better) })
	got = all.since(mark)
	s.Logf("%s: from the verdict to the revert commit %s, until Git and cluster agree %s; meanwhile %d answers, by version %v",
		verdict.reason, s.pushes.of(revert.ID).Sub(verdict.at).Round(10*time.Millisecond), time.Since(verdict.at).Round(10*time.Millisecond), len(got), got.by())
	if faults := got.faults(""); len(faults) > 0 || verdict.reason != "Crashing" || len(got) != got.by()["2"] {
		s.Errorf("the verdict is %s: %s; people got %v, faults %v", verdict.reason, verdict.message, got.by(), faults)
	}
	s.inGit(p.better)
	s.held(sinking)
}

// equals fails unless what runs is what the tip of Git renders to, an image in all pods: but for the partition, and for the
// one copy of the configuration that pods use, which says what Git says.
func (s lock) equals(image string) error {
	want, err := s.rendered()
	if err != nil {
		return err
	}
	key := client.ObjectKey{Namespace: s.app, Name: "web"}
	var set appsv1.StatefulSet
	var configured corev1.ConfigMap
	if err := s.Kube.Get(s.Context(), key, &set); err != nil {
		return err
	}
	copied := set.Spec.Template.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name
	if err := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: copied}, &configured); err != nil {
		return err
	}
	var wrong []error
	for _, object := range want.Objects {
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(object.GroupVersionKind())
		if err := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.app, Name: object.GetName()}, live); err != nil {
			return err
		}
		said := object.DeepCopy()
		switch object.GetKind() {
		case "StatefulSet":
			containers, _, _ := unstructured.NestedSlice(said.Object, "spec", "template", "spec", "containers")
			containers[0].(map[string]any)["envFrom"] = []any{map[string]any{"configMapRef": map[string]any{"name": copied}}}
			s.must(unstructured.SetNestedSlice(said.Object, containers, "spec", "template", "spec", "containers"))
		case "ConfigMap":
			data, _, _ := unstructured.NestedStringMap(said.Object, "data")
			if configured.Data["GREETING"] != data["GREETING"] || copied == object.GetName() {
				wrong = append(wrong, fmt.Errorf("pods use %s with %v, in Git %v", copied, configured.Data, data))
			}
			wrong = append(wrong, s.nothingBeside(object.GroupVersionKind(), []string{object.GetName(), copied}))
		}
		for _, difference := range differences("", said.Object, live.Object) {
			wrong = append(wrong, fmt.Errorf("%s: %s", manifests.RefOf(object), difference))
		}
	}
	if kept := set.Spec.UpdateStrategy.RollingUpdate.Partition; kept == nil || *kept != 0 {
		wrong = append(wrong, errors.New("the partition keeps pods from it"))
	}
	return errors.Join(append(wrong, s.podsRun(image), s.settled(), s.Ready(s.Context(), s.app, ""))...)
}
