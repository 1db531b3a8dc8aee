package appset_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/appset"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// pulled is a pull request as it takes one to have a preview.
func pulled(number int64, change func(*forge.PullRequest)) forge.PullRequest {
	p := forge.PullRequest{
		Number: number, State: forge.Open, Own: true, Head: "work", Base: "main", HeadCommit: gitsource.ObjectID(strings.Repeat("a", 40)),
		Title: "Say hello", Author: "robin", Labels: []string{"preview", "urgent"}, Updated: noon.Add(-time.Hour),
	}
	if change != nil {
		change(&p)
	}
	return p
}

func asked(change func(*v1alpha1.PullRequestGenerator)) v1alpha1.PullRequestGenerator {
	want := v1alpha1.PullRequestGenerator{Host: v1alpha1.HostGitea, Max: 10, MaxAge: metav1.Duration{Duration: 24 * time.Hour}}
	if change != nil {
		change(&want)
	}
	return want
}

func namesOf(entries []appset.Entry) string {
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Variables["name"])
	}
	return strings.Join(names, " ")
}

func TestPullRequests(t *testing.T) {
	t.Parallel()
	since := func(ago time.Duration) func(*forge.PullRequest) {
		return func(p *forge.PullRequest) { p.Updated = noon.Add(-ago) }
	}
	labels := func(names ...string) func(*v1alpha1.PullRequestGenerator) {
		return func(want *v1alpha1.PullRequestGenerator) { want.Labels = names }
	}
	for _, c := range []struct {
		name string
		all  []forge.PullRequest
		want func(*v1alpha1.PullRequestGenerator)
		get  string
	}{
		{"none", nil, nil, ""},
		{"by number", []forge.PullRequest{pulled(12, nil), pulled(3, nil)}, nil, "pr-3 pr-12"},
		{"of a fork", []forge.PullRequest{pulled(1, func(p *forge.PullRequest) { p.Own = false })}, nil, ""},
		{"closed and merged", []forge.PullRequest{
			pulled(1, func(p *forge.PullRequest) { p.State = forge.Closed }), pulled(2, func(p *forge.PullRequest) { p.State = forge.Merged }),
			pulled(3, func(p *forge.PullRequest) { p.State = "" }),
		}, nil, ""},
		{"to another branch", []forge.PullRequest{pulled(1, func(p *forge.PullRequest) { p.Base = "release" })}, nil, ""},
		{"all labels", []forge.PullRequest{pulled(1, nil), pulled(2, func(p *forge.PullRequest) { p.Labels = []string{"preview"} })}, labels("urgent", "preview"), "pr-1"},
		{"a label in another case", []forge.PullRequest{pulled(1, nil)}, labels("Preview"), ""},
		{"age", []forge.PullRequest{pulled(1, since(24*time.Hour)), pulled(2, since(24*time.Hour+time.Second)), pulled(3, since(-time.Minute))}, nil, "pr-1 pr-3"},
		{"never updated", []forge.PullRequest{pulled(1, func(p *forge.PullRequest) { p.Updated = time.Time{} })}, nil, ""},
		{
			"the newest",
			[]forge.PullRequest{pulled(1, since(time.Minute)), pulled(2, since(3*time.Minute)), pulled(3, since(2*time.Minute)), pulled(4, since(time.Hour))},
			func(want *v1alpha1.PullRequestGenerator) { want.Max = 2 }, "pr-1 pr-3",
		},
		{
			"of one second",
			[]forge.PullRequest{pulled(1, nil), pulled(3, nil), pulled(2, nil)},
			func(want *v1alpha1.PullRequestGenerator) { want.Max = 2 }, "pr-2 pr-3",
		},
		{
			"what is not shown takes no room",
			[]forge.PullRequest{pulled(1, since(2*time.Hour)), pulled(2, func(p *forge.PullRequest) { p.Own = false })},
			func(want *v1alpha1.PullRequestGenerator) { want.Max = 1 }, "pr-1",
		},
	} {
		slices.Reverse(c.all)
		if got := namesOf(appset.PullRequests(c.all, asked(c.want), "main", noon)); got != c.get {
			t.Errorf("%s: %q, want %q", c.name, got, c.get)
		}
	}
}

func TestVariablesOfAPullRequest(t *testing.T) {
	t.Parallel()
	for branch, slug := range map[string]string{
		"work": "work", "feature/ABC-12_Say.Hello": "feature-abc-12-say-hello", "--x--y--": "x-y", "日本": "pr-7", "1.2": "1-2",
		strings.Repeat("a", 39) + "/bc": strings.Repeat("a", 39), strings.Repeat("ab", 30): strings.Repeat("ab", 20),
	} {
		p := pulled(7, func(p *forge.PullRequest) { p.Head, p.Title = branch, "Say {{values.commit}}" })
		entries := appset.PullRequests([]forge.PullRequest{p}, asked(nil), "main", noon)
		if len(entries) != 1 {
			t.Fatalf("%+v", entries)
		}
		want := map[string]string{
			"name": "pr-7", "values.number": "7", "values.branch": branch, "values.slug": slug, "values.commit": strings.Repeat("a", 40),
			"values.author": "robin", "values.title": "Say {{values.commit}}",
		}
		if got := entries[0].Variables; fmt.Sprint(got) != fmt.Sprint(want) || entries[0].Origin != "pull request 7" {
			t.Errorf("%s: %+v", branch, entries[0])
		}
	}
}

// show is the preview of pull request 7, by a template that is changed.
func show(t *testing.T, change func(*v1alpha1.ApplicationTemplate)) appset.Expansion {
	t.Helper()
	in := template("shop-{{name}}", "deploy")
	in.Spec.ServiceAccountName, in.Spec.TargetNamespace = "previews", "{{values.slug}}"
	in.Metadata.Annotations = map[string]string{"title": "{{values.title}}"}
	if change != nil {
		change(&in)
	}
	p := pulled(7, func(p *forge.PullRequest) { p.Title = "Say {{values.commit}}" })
	return appset.Expand(in, appset.PullRequests([]forge.PullRequest{p}, asked(nil), "main", noon))
}

func TestPreview(t *testing.T) {
	t.Parallel()
	set := &v1alpha1.ApplicationSet{ObjectMeta: metav1.ObjectMeta{Namespace: "slipway-system", Name: "shops", UID: "1"}}
	out := show(t, nil)
	if len(out.Applications) != 1 || len(out.Failures) != 0 {
		t.Fatalf("%+v", out)
	}
	app := out.Applications[0]
	if app.Name != "shop-pr-7" || app.Spec.SourceRef.Name != "shop-pr-7" || app.Spec.TargetNamespace != "work" || app.Annotations["title"] != "Say {{values.commit}}" {
		t.Errorf("%+v", app)
	}
	object, err := app.Object(set)
	if err != nil || object.GetLabels()[manifests.LabelPullRequest] != "7" {
		t.Errorf("%v %v", object, err)
	}
	// The label is what lets a removal pass, so that a template cannot give it to what is no preview.
	labelled := template("", "a")
	labelled.Metadata.Labels = map[string]string{manifests.LabelPullRequest: "7"}
	other, err := appset.Expand(labelled, appset.List([]v1alpha1.ApplicationSetEntry{entry("a")})).Applications[0].Object(set)
	if _, found := other.GetLabels()[manifests.LabelPullRequest]; err != nil || found {
		t.Errorf("%v %v", other.GetLabels(), err)
	}

	none := show(t, func(in *v1alpha1.ApplicationTemplate) { in.Spec.ServiceAccountName = "" })
	if len(none.Failures) != 1 || !strings.Contains(none.Failures[0].Err.Error(), "serviceAccountName") || !none.Failures[0].Disposable {
		t.Errorf("without an account: %+v", none)
	}
}

// The copy of a source keeps all that guards it and nothing that makes it move.
func TestSourceOfAPreview(t *testing.T) {
	t.Parallel()
	set := &v1alpha1.ApplicationSet{ObjectMeta: metav1.ObjectMeta{Namespace: "slipway-system", Name: "shops", UID: "1"}}
	owner := &metav1.ObjectMeta{Name: "shop-pr-7", UID: "2"}
	base := &v1alpha1.GitSource{Spec: v1alpha1.GitSourceSpec{
		URL: "https://git.example/shop.git", Semver: "~1", Interval: metav1.Duration{Duration: time.Minute}, SecretRef: &v1alpha1.LocalRef{Name: "login"},
		Webhook: &v1alpha1.SourceWebhook{}, Verify: &v1alpha1.Verification{Mode: v1alpha1.VerifyTag, SecretRef: v1alpha1.LocalRef{Name: "keys"}},
	}}
	object, err := show(t, nil).Applications[0].Source(set, base, owner)
	if err != nil {
		t.Fatal(err)
	}
	var source v1alpha1.GitSource
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &source); err != nil {
		t.Fatal(err)
	}
	spec := source.Spec
	if spec.URL != base.Spec.URL || spec.SecretRef.Name != "login" || spec.Interval != base.Spec.Interval || spec.Commit != strings.Repeat("a", 40) ||
		spec.Semver+spec.Branch+spec.Tag != "" || spec.Webhook != nil || spec.Verify.SecretRef.Name != "keys" || spec.Verify.Mode != v1alpha1.VerifyHead {
		t.Errorf("%+v", spec)
	}
	controller := metav1.GetControllerOf(&source)
	if controller == nil || controller.Kind != "Application" || controller.Name != "shop-pr-7" || controller.UID != "2" || source.Labels[manifests.LabelPullRequest] != "7" {
		t.Errorf("%+v", source.ObjectMeta)
	}
	if base.Spec.Verify.Mode != v1alpha1.VerifyTag || base.Spec.Semver == "" {
		t.Errorf("the source itself was changed: %+v", base.Spec)
	}
	if holds, err := appset.Holds(&source, object); err != nil || !holds {
		t.Errorf("%v %v", holds, err)
	}
	source.Spec.Commit = strings.Repeat("b", 40)
	if holds, err := appset.Holds(&source, object); err != nil || holds {
		t.Errorf("another commit: %v %v", holds, err)
	}
	if _, err := (appset.Application{Name: "a"}).Source(set, base, owner); err == nil {
		t.Error("what is no preview has a source")
	}
}

// Previews go without being asked for, whatever becomes of the others, and do not count among them.
func TestRemoveOfPreviews(t *testing.T) {
	t.Parallel()
	previews := func(from, to int) []appset.Owned {
		var out []appset.Owned
		for i := from; i < to; i++ {
			out = append(out, appset.Owned{Name: fmt.Sprintf("pr-%d", i), UID: fmt.Sprint(i), Disposable: true})
		}
		return out
	}
	all := appset.Remove(appset.In{Set: "shops", Owned: previews(0, 40)})
	if all.Held != "" || len(all.Now) != 40 || all.State != "" {
		t.Errorf("all previews: %+v", all)
	}
	in := appset.In{Set: "shops", Want: named(numbers(0, 2)...), Owned: append(owned(numbers(0, 22), ""), previews(0, 40)...)}
	mixed := appset.Remove(in)
	if !strings.HasPrefix(mixed.Held, "would remove 20 of 22 applications") || len(mixed.Now) != 40 || len(mixed.Names) != 60 || mixed.Now[0] != "pr-0" {
		t.Errorf("mixed: %+v", mixed)
	}
	// An approval outlives what comes and goes meanwhile.
	in.Approved, in.Owned = approval(t, mixed), owned(numbers(0, 22), "")
	in.Want.Applications = append(in.Want.Applications, show(t, nil).Applications...)
	in.Want.Failures = append(in.Want.Failures, appset.Failure{Origin: "pull request 9", Name: "pr-9", Disposable: true})
	if going := appset.Remove(in); going.Held != "" || len(going.Now) != 20 || going.State == "" {
		t.Errorf("approved: %+v", going)
	}
	nameless := show(t, func(in *v1alpha1.ApplicationTemplate) { in.Metadata.Name = "{{values.nope}}" })
	if kept := appset.Remove(appset.In{Set: "shops", Want: nameless, Owned: previews(0, 2)}); kept.Held == "" || kept.Now != nil {
		t.Errorf("nameless: %+v", kept)
	}
}
