package apps

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// family is an ApplicationSet, and the namespace for all that its Applications apply, which have the same name.
type family struct{ story }

// found begins a family; spec is further lines of YAML with an indent of two.
func found(t *testing.T, name, spec string, files ...gitsource.Change) family {
	t.Helper()
	t.Parallel()
	f := family{story{t, name}}
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n"
	f.commit("Start "+name, append(files, world.Write("clusters/demo/"+name+"-namespace.yaml", namespace), f.declared(spec))...)
	return f
}

// declared is the file with the set. Its Applications have its own name before theirs.
func (f family) declared(spec string) gitsource.Change {
	return world.Write("clusters/demo/"+f.name+".yaml", fmt.Sprintf(`apiVersion: slipway.dev/v1alpha1
kind: ApplicationSet
metadata: {name: %s, namespace: slipway-system, annotations: {slipway.dev/prune: enabled}}
spec:
%s`, f.name, spec))
}

// directories is the spec of a set with an Application for each FAMILY/*/production.
func directories(name, more string) string {
	return fmt.Sprintf(`  directories: {pattern: %[1]s/*/production, exclude: ['%[1]s/x-*']}
  template:
    metadata: {name: '%[1]s-{{name}}', labels: {of: '{{values.1}}'}}
    spec:
      sourceRef: {name: fleet}
      path: '{{path}}'
      targetNamespace: %[1]s
%[2]s`, name, more)
}

// member is the folder of one Application, with a ConfigMap of its name.
func (f family) member(name, value string) gitsource.Change {
	return world.Write(f.path(name), fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '%s'}\ndata: {value: %s}\n", strings.ToLower(strings.ReplaceAll(name, "_", "-")), value))
}

func (f family) path(name string) string { return f.name + "/" + name + "/production/settings.yaml" }

func (f family) without(name string) gitsource.Change { return world.Remove(f.path(name)) }

func (f family) set() *v1alpha1.ApplicationSet {
	f.Helper()
	var set v1alpha1.ApplicationSet
	if err := shared.Kube.Get(f.Context(), f.key(f.name), &set); client.IgnoreNotFound(err) != nil {
		f.Fatal(err)
	}
	return &set
}

func (f family) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: world.Namespace, Name: name}
}

// wait is eventually of a set.
func (f family) wait(check func() error) {
	f.Helper()
	if err := world.Eventually(f.Context(), atMost, check); err != nil {
		f.Fatalf("%v\nstatus: %+v", err, f.set().Status)
	}
}

// children are the names of the Applications with the label of the set, without what all begin with.
func (f family) children() ([]string, error) {
	var list v1alpha1.ApplicationList
	err := shared.Kube.List(f.Context(), &list, client.InNamespace(world.Namespace), client.MatchingLabels{manifests.LabelApplicationSet: f.name})
	var names []string
	for _, app := range list.Items {
		names = append(names, strings.TrimPrefix(app.Name, f.name+"-"))
	}
	return names, err
}

// are waits until the set is Ready and has these Applications, all Ready, and no other.
func (f family) are(names ...string) {
	f.Helper()
	f.wait(func() error {
		children, err := f.children()
		if err != nil || !slices.Equal(children, names) {
			return fmt.Errorf("applications %v, want %v, %v", children, names, err)
		}
		if err := f.saying(v1alpha1.ReasonSucceeded); err != nil {
			return err
		}
		if status := f.set().Status; status.Applications != len(names) || status.Ready != len(names) || status.Failed+status.Removing != 0 || status.Failures != nil {
			return fmt.Errorf("%+v", status)
		}
		return nil
	})
}

// saying fails unless the condition Ready of the set has a reason and a message that says all of words.
func (f family) saying(reason string, words ...string) error {
	ready := meta.FindStatusCondition(f.set().Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Reason != reason {
		return fmt.Errorf("ready: %+v, want reason %s", ready, reason)
	}
	for _, word := range words {
		if !strings.Contains(ready.Message, word) {
			return fmt.Errorf("message %q does not say %q", ready.Message, word)
		}
	}
	return nil
}

func (f family) told(reason string, words ...string) {
	f.Helper()
	f.wait(func() error { return f.saying(reason, words...) })
}

// applied waits until the ConfigMap of a member has a value.
func (f family) applied(name, value string) {
	f.Helper()
	f.wait(func() error { return f.is(name, value) })
}

// gone waits until the ConfigMap of a member is not there.
func (f family) gone(name string) {
	f.Helper()
	f.wait(func() error {
		_, err := shared.clients.CoreV1().ConfigMaps(f.name).Get(f.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%s is still there, %v", name, err)
	})
}

func (f family) application(name string) *v1alpha1.Application {
	f.Helper()
	app, err := shared.Application(f.Context(), f.name+"-"+name)
	f.must(err)
	return app
}

// Applications come, change and go with the directories; what is broken stands in nobody's way.
func TestSetOfDirectories(t *testing.T) {
	f := found(t, "dirs", directories("dirs", ""))
	f.commit("Two members", f.member("one", "a"), f.member("two", "a"), f.member("x-men", "a"), world.Write("dirs/three/dev/settings.yaml", "a: b\n"))
	f.are("one", "two")
	f.applied("one", "a")
	owner := metav1.GetControllerOf(f.application("one"))
	if owner == nil || owner.UID != f.set().UID || f.application("one").Labels["of"] != "one" || f.application("one").Spec.Path != "dirs/one/production" {
		t.Errorf("%+v %+v", owner, f.application("one"))
	}
	uid := f.application("one").UID

	f.commit("Change one, add three", f.member("one", "b"), f.member("three", "a"))
	f.are("one", "three", "two")
	f.applied("one", "b")

	// A person's edit is healed; what a person adds beside it is left alone.
	f.must(shared.Kube.Patch(t.Context(), f.application("one"), client.RawPatch(types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"of":"nobody","mine":"yes"}},"spec":{"path":"elsewhere","suspend":true}}`)), client.FieldOwner("kubectl-edit")))
	f.wait(func() error {
		if app := f.application("one"); app.Spec.Path != "dirs/one/production" || app.Labels["of"] != "one" || app.Labels["mine"] != "yes" || !app.Spec.Suspend {
			return fmt.Errorf("%v %+v", app.Labels, app.Spec)
		}
		return nil
	})
	f.must(shared.Kube.Patch(t.Context(), f.application("one"), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":null}}`))))

	f.commit("Rename two to deux", f.without("two"), f.member("deux", "a"))
	f.are("deux", "one", "three")
	f.gone("two")

	f.commit("One that cannot be", f.member("Bad_Name", "a"), f.member("deux", "b"))
	f.told(v1alpha1.ReasonEntriesFailed, "1 of 4 entries failed", "directory dirs/Bad_Name/production", `the name "dirs-Bad_Name"`)
	f.applied("deux", "b")
	if failures := f.set().Status.Failures; len(failures) != 1 || failures[0].Origin != "directory dirs/Bad_Name/production" {
		t.Errorf("%+v", failures)
	}

	f.commit("An Application in Git", f.without("Bad_Name"), application("dirs-taken", ""),
		world.Write("apps/dirs-taken/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, namespace: dirs}\n"))
	f.are("deux", "one", "three")
	f.applied("other", "")
	f.commit("Its name in the set, and another template", f.member("taken", "a"), f.declared(directories("dirs", "      timeout: 3m\n")))
	f.wait(func() error {
		if got := f.application("three").Spec.Timeout.Duration; got != 3*time.Minute {
			return fmt.Errorf("timeout %s", got)
		}
		return nil
	})
	f.told(v1alpha1.ReasonEntriesFailed, "application dirs-taken exists: it comes from Git, by Application demo")
	f.commit("Give the name back", world.Remove("clusters/demo/dirs-taken.yaml"))
	f.are("deux", "one", "taken", "three")

	// What cannot be read says nothing about directories.
	f.commit("A source that is not there", f.declared(strings.Replace(directories("dirs", ""), "{name: fleet}", "{name: nowhere}", 1)))
	f.told(v1alpha1.ReasonSourceNotReady, "GitSource nowhere does not exist", "all applications stay as they are")
	f.commit("A pattern that is none", f.declared(strings.Replace(directories("dirs", ""), "dirs/*/production", "dirs/**", 1)))
	f.told(v1alpha1.ReasonEntriesFailed, `spec.directories.pattern "dirs/**": ** is not known`)
	f.commit("A variable that there is not", f.declared(strings.Replace(directories("dirs", ""), "path: '{{path}}'", "path: '{{pfad}}'", 1)))
	f.told(v1alpha1.ReasonEntriesFailed, "4 of 4 entries failed", "template.spec.path: there is no variable {{pfad}}; did you mean \"path\"?")
	if children, err := f.children(); err != nil || len(children) != 4 {
		t.Errorf("applications %v, %v", children, err)
	}

	f.commit("Remove one directory", f.without("three"), f.declared(directories("dirs", "")))
	f.are("deux", "one", "taken")
	f.gone("three")
	if f.application("one").UID != uid {
		t.Error("one was made again")
	}
}

// quiet waits until the agent has asked nothing about the family for five seconds.
func (f family) quiet() {
	f.Helper()
	f.wait(func() error {
		requests, err := f.requests(time.Now().Add(-5 * time.Second))
		if err != nil || len(requests) > 0 {
			return fmt.Errorf("%d requests: %v, %v", len(requests), requests, err)
		}
		return nil
	})
}

// requests are those of the agent about the set, its Applications and their objects.
func (f family) requests(since time.Time) ([]world.Request, error) {
	all, err := shared.Requests(since)
	return slices.DeleteFunc(all, func(r world.Request) bool {
		return r.Namespace != f.name && !strings.HasPrefix(r.Name, f.name)
	}), err
}

// Sixty at once; then nothing, and a commit elsewhere, cost no request; then most of them are to go, which takes a person.
func TestSetOfSixty(t *testing.T) {
	f := found(t, "sixty", directories("sixty", ""))
	var names []string
	var files, removed []gitsource.Change
	for i := range 60 {
		name := fmt.Sprintf("m%02d", i)
		names, files = append(names, name), append(files, f.member(name, "a"))
		if i >= 6 {
			removed = append(removed, f.without(name))
		}
	}
	f.commit("Sixty members", files...)
	f.are(names...)

	f.quiet()
	start := time.Now()
	f.commit("Elsewhere", world.Write("clusters/demo/mark.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mark, namespace: shared}\n"))
	f.wait(func() error {
		_, err := shared.clients.CoreV1().ConfigMaps("shared").Get(t.Context(), "mark", metav1.GetOptions{})
		return err
	})
	f.quiet()
	if requests, err := f.requests(start); err != nil || len(requests) > 0 {
		t.Errorf("idle: %v, %v", requests, err)
	}

	f.commit("Remove nine tenths, add one, change one", append(removed, f.member("new", "a"), f.member("m00", "b"))...)
	f.told(v1alpha1.ReasonPruneHeld, "would remove 54 of 6", "kubectl annotate applicationset sixty --overwrite slipway.dev/approve-prune=sha256:")
	f.applied("new", "a")
	f.applied("m00", "b")
	if children, err := f.children(); err != nil || len(children) != 61 {
		t.Fatalf("%d applications while held, %v", len(children), err)
	}
	f.must(f.approve())
	f.are("m00", "m01", "m02", "m03", "m04", "m05", "new")
	f.gone("m59")

	f.commit("Remove all", f.without("m00"), f.without("m01"), f.without("m02"), f.without("m03"), f.without("m04"), f.without("m05"), f.without("new"))
	f.told(v1alpha1.ReasonPruneHeld, "spec.directories.pattern sixty/*/production matches nothing", "would remove 7 of 7")
	f.commit("All back", files[0], files[1], files[2], files[3], files[4], files[5], f.member("new", "a"))
	f.are("m00", "m01", "m02", "m03", "m04", "m05", "new")
}

// approve does what the condition says.
func (f family) approve() error {
	ready := meta.FindStatusCondition(f.set().Status.Conditions, v1alpha1.ConditionReady)
	_, value, told := strings.Cut(ready.Message, manifests.AnnotationApprovePrune+"=")
	if !told {
		return errors.New("no approval is asked for: " + ready.Message)
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, manifests.AnnotationApprovePrune, value)
	return shared.Kube.Patch(f.Context(), f.set(), client.RawPatch(types.MergePatchType, patch), client.FieldOwner("kubectl-annotate"))
}

// listing is the spec of a set of a list, all of one folder.
func listing(name, more string) string {
	return fmt.Sprintf(`  list: [{name: eu, values: {size: large}}, {name: us, values: {size: small}}]
  template:
    metadata: {name: '%[1]s-{{name}}'}
    spec:
      sourceRef: {name: fleet}
      path: apps/%[1]s
      targetNamespace: %[1]s
      namePrefix: '{{name}}-{{values.size}}-'
%[2]s`, name, more)
}

// A set that goes takes its Applications along with what they own, or with preserve leaves them to nobody.
func TestSetThatGoes(t *testing.T) {
	f := found(t, "leaves", listing("leaves", "  preserve: true\n"), world.Write("apps/leaves/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {value: a}\n"))
	f.are("eu", "us")
	f.applied("eu-large-settings", "a")
	f.must(shared.Kube.Delete(t.Context(), f.set(), client.PropagationPolicy(metav1.DeletePropagationForeground)))
	// Git brings the set back, and Applications that are nobody's are not taken without being asked.
	f.told(v1alpha1.ReasonEntriesFailed, "application leaves-eu exists: somebody made it by hand", "kubectl label application leaves-eu --overwrite slipway.dev/applicationset=leaves")
	for _, name := range []string{"eu", "us"} {
		app := f.application(name)
		if app.DeletionTimestamp != nil || app.Labels[manifests.LabelApplicationSet] != "" || len(app.OwnerReferences) > 0 {
			t.Errorf("%+v", app.ObjectMeta)
		}
		f.must(shared.Kube.Patch(t.Context(), app, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+manifests.LabelApplicationSet+`":"leaves"}}}`))))
	}
	f.are("eu", "us")

	f.commit("No preserving any more", f.declared(listing("leaves", "")))
	f.wait(func() error {
		if metav1.GetControllerOf(f.application("us")) == nil {
			return errors.New("us has no owner")
		}
		return nil
	})
	f.commit("Remove the set", world.Remove("clusters/demo/leaves.yaml"))
	f.wait(func() error {
		children, err := f.children()
		if err != nil || len(children) > 0 || f.set().Name != "" {
			return fmt.Errorf("%v of set %q are left, %v", children, f.set().Name, err)
		}
		return nil
	})
	f.gone("eu-large-settings")
	f.gone("us-small-settings")
}

// What the API server cannot take is refused there, and told with the way out.
func TestSetIsChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, spec, want string }{
		{"nothing", "", "nothing to make Applications for: give directories, list or pullRequests"},
		{"source", "directories: {pattern: a/*}", "template.spec.sourceRef.name has no variables"},
		{"timeout", "list: [{name: a}]", "duration"},
		{strings.Repeat("a", 64), "list: [{name: a}]", "at most 63 characters"},
		{"twice", "list: [{name: a}, {name: a}]", "Duplicate value"},
	} {
		source, timeout := "fleet", "1m"
		if c.name == "source" {
			source = "{{name}}"
		}
		if c.name == "timeout" {
			timeout = "{{name}}"
		}
		text := fmt.Sprintf("apiVersion: slipway.dev/v1alpha1\nkind: ApplicationSet\nmetadata: {name: %s, namespace: slipway-system}\nspec:\n  %s\n  template: {spec: {sourceRef: {name: '%s'}, path: a, timeout: '%s'}}\n", c.name, c.spec, source, timeout)
		if err := create(t, text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// create asks the API server for an object, without making it.
func create(t *testing.T, text string) error {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		t.Fatal(err)
	}
	return shared.Kube.Create(t.Context(), object, client.DryRunAll)
}
