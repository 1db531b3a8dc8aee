package plan_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// hook is a Job "job/NAME:..." that runs at a point of the way.
func hook(item, when string) *unstructured.Unstructured {
	o := object(item)
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[manifests.AnnotationHook] = when
	o.SetAnnotations(annotations)
	return o
}

func TestCutHooks(t *testing.T) {
	set, err := manifests.NewSet([]*unstructured.Unstructured{
		object("cm/a"), object("job/plain"), hook("job/second:wave=1", "pre-apply"), hook("job/z", "pre-apply"), hook("job/a", "pre-apply"),
		hook("job/check", "post-apply"),
	})
	if err != nil {
		t.Fatal(err)
	}
	rest, hooks, err := plan.CutHooks(set)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest.Objects) != 2 || rest.Digest != set.Digest || rest.Find(refOf("job/plain")) == nil {
		t.Errorf("the rest is %v with digest %s", rest.Objects, rest.Digest)
	}
	var waves []string
	for _, wave := range plan.HookWaves(hooks, manifests.HookPreApply) {
		var names []string
		for _, h := range wave {
			names = append(names, h.Ref.Name)
		}
		waves = append(waves, strings.Join(names, " "))
	}
	if !slices.Equal(waves, []string{"a z", "second"}) {
		t.Errorf("waves %q", waves)
	}
	if got := plan.HookWaves(hooks, manifests.HookOnFailure); got != nil {
		t.Errorf("hooks out of nothing: %v", got)
	}
	for _, bad := range []struct {
		object *unstructured.Unstructured
		want   string
	}{
		{hook("cm/a", "pre"), "ConfigMap shop/a: annotation slipway.dev/hook: \"pre\" is not one of"},
		{hook("job/a", "PreSync"), `"PreSync" is not one of pre-apply, post-apply, on-failure`},
		{hook("job/a:wave=x", "pre-apply"), `annotation slipway.dev/wave: "x" is not an integer`},
	} {
		set, err := manifests.NewSet([]*unstructured.Unstructured{bad.object})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := plan.CutHooks(set); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("got %v, want %q", err, bad.want)
		}
	}
}

// A Set's hooks are known to a Plan, so that the Jobs they left are not pruned, and are not applied by it.
func TestComputeLeavesHooksAlone(t *testing.T) {
	in := plan.In{
		Application: "shop", Owned: plan.Inventory{refOf("job/a"): {Version: "v1", UID: "u1"}, refOf("job/b"): {Version: "v1", UID: "u1"}},
		Seen:    plan.Observed{refOf("job/a"): live(nil), refOf("job/b"): live(nil)},
		Hooks:   map[manifests.Ref]bool{refOf("job/a"): true},
		Options: plan.Options{Prune: true},
	}
	p, err := plan.Compute(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.String(); got != "prune wave 0:\n  delete    batch/Job shop/b: left Git\n0 unchanged\n" {
		t.Error(got)
	}
	if _, kept := p.Inventory[refOf("job/a")]; !kept {
		t.Error("the hook's Job left the Inventory")
	}
}

func TestStartHooks(t *testing.T) {
	const set = manifests.Digest("sha256:2")
	job := hook("job/migrate:ttl", "pre-apply")
	hooks := []plan.Hook{{Ref: refOf("job/migrate"), When: "pre-apply", Object: job}}
	with := func(change func(*plan.Live)) plan.Live {
		l := live(nil)
		change(&l)
		return l
	}
	for name, c := range map[string]struct {
		live plan.Live
		want string
	}{
		"new":              {plan.Live{State: plan.Absent}, "wave 0:\n  create    batch/Job shop/migrate: pre-apply hook\n"},
		"runs":             {with(func(l *plan.Live) { l.HookSet = string(set) }), ""},
		"of another set":   {with(func(l *plan.Live) { l.HookSet = "sha256:1" }), "prune wave 0:\n  delete    batch/Job shop/migrate: ran for another Set\n"},
		"a plain job once": {live(nil), "prune wave 0:\n  delete    batch/Job shop/migrate: ran for another Set\n"},
		"is being deleted": {with(func(l *plan.Live) { l.Deleting = true }), ""},
		"somebody's":       {live(map[string]string{"foreign": "", "by": "kubectl-create"}), "error: batch/Job shop/migrate: the name of a hook is taken; managed by kubectl-create"},
		"another's":        {with(func(l *plan.Live) { l.Application = "bank"; l.HookSet = string(set) }), "error: batch/Job shop/migrate: belongs to Application bank"},
		"unknown":          {plan.Live{}, "error: batch/Job shop/migrate: live state unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := plan.StartHooks("shop", set, hooks, plan.Observed{refOf("job/migrate"): c.live}, nil)
			got := strings.TrimSuffix(p.String(), "0 unchanged\n")
			if err != nil {
				got = "error: " + err.Error()
			}
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if _, err := plan.StartHooks("shop", set, hooks, nil, nil); !errors.Is(err, plan.ErrUnknown) {
		t.Errorf("unseen: %v", err)
	}
	p, err := plan.StartHooks("shop", set, hooks, plan.Observed{refOf("job/migrate"): {State: plan.Absent}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	started := p.Actions()[0].Object
	if _, expires, _ := unstructured.NestedFieldNoCopy(started.Object, "spec", "ttlSecondsAfterFinished"); expires {
		t.Error("it may be removed before anybody has seen how it ended")
	}
	if started.GetAnnotations()[manifests.AnnotationHookSet] != string(set) || started.GetLabels()[manifests.LabelApplication] != "shop" {
		t.Errorf("started with %v, %v", started.GetAnnotations(), started.GetLabels())
	}
	if job.GetLabels() != nil || job.GetAnnotations()[manifests.AnnotationHookSet] != "" {
		t.Error("the Set was changed")
	}
	kept, err := plan.KeepHook("shop", set, hooks[0], plan.Inventory{refOf("job/migrate"): {UID: "u1"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, expires, _ := unstructured.NestedFieldNoCopy(kept.Actions()[0].Object.Object, "spec", "ttlSecondsAfterFinished"); !expires {
		t.Error("it is kept for ever")
	}
}

func TestHookSecrets(t *testing.T) {
	job := hook("job/migrate", "pre-apply")
	job.Object["spec"] = map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{
		"envFrom": []any{map[string]any{"secretRef": map[string]any{"name": "database"}}, map[string]any{"configMapRef": map[string]any{"name": "settings"}}},
	}}}}}
	h := plan.Hook{Ref: refOf("job/migrate"), Object: job}
	if got := h.Secrets(); len(got) != 1 || got[0].String() != "Secret shop/database" {
		t.Errorf("got %v", got)
	}
}

func TestFoundation(t *testing.T) {
	set, err := manifests.NewSet([]*unstructured.Unstructured{object("ns/shop"), object("crd/boats"), object("cm/a"), hook("cm/for-hook", "pre-apply"), hook("cm/late", "post-apply")})
	if err != nil {
		t.Fatal(err)
	}
	seen := plan.Observed{}
	for _, o := range set.Objects {
		seen[manifests.RefOf(o)] = plan.Live{State: plan.Absent}
	}
	p, err := plan.Compute(plan.In{Application: "shop", Want: set, Seen: seen})
	if err != nil {
		t.Fatal(err)
	}
	if _, hooks, err := plan.CutHooks(set); err != nil || len(hooks) != 0 {
		t.Errorf("%v are hooks and no Jobs, %v", hooks, err)
	}
	var names []string
	for _, stage := range p.Foundation().Stages {
		names = append(names, stage.Name)
	}
	if !slices.Equal(names, []string{"crds", "namespaces", "for hooks, wave 0"}) || len(p.Stages) != 4 {
		t.Errorf("foundation %v of %d stages", names, len(p.Stages))
	}
}
