package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests"
)

// Diff is what applying an object would change.
type Diff struct {
	Ref    manifests.Ref
	Create bool        // the object is not there
	Fields []FieldDiff // ordered by Path
}

// FieldDiff is one field that differs or that was taken from us. Values of
// Secrets are masked, and so is kubectl's record of what it applied, which can
// hold anything. Live == Want means that only its ownership was lost.
type FieldDiff struct {
	Path     string // "spec.template.spec.containers[web].image"
	Live     string // JSON, shortened; "" when the field is not there
	Want     string
	Managers []string // others that own the live field
}

// String reads from live to wanted: "spec.replicas: 5 -> 3 (kubectl-scale)".
func (f FieldDiff) String() string { return f.text(f.Live, f.Want) }

// Drift reads from wanted to live, as one tells of a drift: "spec.replicas: 3 -> 5 (kubectl-scale)".
func (f FieldDiff) Drift() string { return f.text(f.Want, f.Live) }

func (f FieldDiff) text(from, to string) string {
	what := orNone(from) + " -> " + orNone(to)
	if from == to {
		what = orNone(to) + ", taken over"
	}
	if len(f.Managers) == 0 {
		return f.Path + ": " + what
	}
	return fmt.Sprintf("%s: %s (%s)", f.Path, what, strings.Join(f.Managers, ", "))
}

func orNone(value string) string {
	if value == "" {
		return "(none)"
	}
	return value
}

// DryRun asks the server what applying object would change, after defaulting
// and admission, and who owns what would change. An *ObjectError says that the
// server would refuse it.
func (a *Applier) DryRun(ctx context.Context, object *unstructured.Unstructured) (Diff, error) {
	return a.DryRunHiding(ctx, object, func(text string) string { return text })
}

// DryRunHiding is DryRun for those who know of secret values that may stand in other objects than Secrets: hide takes them
// out of the JSON of each value before it is shortened, so that no beginning of one is left.
func (a *Applier) DryRunHiding(ctx context.Context, object *unstructured.Unstructured, hide func(text string) string) (Diff, error) {
	ref := manifests.RefOf(object)
	r, err := a.mapper.find(ref.GroupKind(), object.GroupVersionKind().Version)
	if err != nil {
		return Diff{}, objectError(ref, err)
	}
	content, err := json.Marshal(object.Object)
	if err != nil {
		return Diff{}, objectError(ref, err)
	}
	live, want, err := a.trial(ctx, r, ref, content)
	if err != nil {
		return Diff{}, objectError(ref, err)
	}
	if live == nil {
		return Diff{Ref: ref, Create: true}, nil
	}
	fields, err := compare(live, want, a.options.Manager, hide)
	if err != nil {
		return Diff{}, objectError(ref, err)
	}
	return Diff{Ref: ref, Fields: fields}, nil
}

// trial returns the live object, nil if there is none, and what an apply would
// make of it. It tries again when others wrote in between: their work would look like ours.
func (a *Applier) trial(ctx context.Context, r resource, ref manifests.Ref, content []byte) (live, want *unstructured.Unstructured, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	client := a.wholeOf(r, ref)
	options := a.applyOptions()
	options.DryRun = []string{metav1.DryRunAll}
	const attempts = 5
	for range attempts {
		live, err = client.Get(ctx, ref.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			live, err = nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		want, err = client.Patch(ctx, ref.Name, types.ApplyPatchType, content, options)
		if err != nil {
			return nil, nil, err
		}
		if live == nil || live.GetResourceVersion() == want.GetResourceVersion() {
			break
		}
	}
	return live, want, nil
}

// compare lists the fields that differ between live and want, and those that
// want would own and live does not.
func compare(live, want *unstructured.Unstructured, manager string, hide func(string) string) ([]FieldDiff, error) {
	before, err := owners(live.GetManagedFields())
	if err != nil {
		return nil, err
	}
	after, err := owners(want.GetManagedFields())
	if err != nil {
		return nil, err
	}
	c := comparison{manager: manager, hide: hide, secret: live.GroupVersionKind().Group == "" && live.GetKind() == "Secret"}
	c.value("", stripped(live), stripped(want), before, ours(after, manager))
	slices.SortFunc(c.fields, func(a, b FieldDiff) int { return strings.Compare(a.Path, b.Path) })
	return c.fields, nil
}

// stripped returns the object without what the server alone writes.
func stripped(object *unstructured.Unstructured) map[string]any {
	content := object.DeepCopy().Object
	delete(content, "status")
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"} {
		unstructured.RemoveNestedField(content, "metadata", field)
	}
	return content
}

// ownership is one manager's FieldsV1 below some path.
type ownership struct {
	manager string
	apply   bool
	fields  map[string]any
}

// owners decodes managedFields, without those of subresources except scale.
func owners(entries []metav1.ManagedFieldsEntry) ([]ownership, error) {
	var result []ownership
	for _, e := range entries {
		if e.FieldsV1 == nil || e.Subresource == "status" {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields); err != nil {
			return nil, fmt.Errorf("managedFields of %s cannot be read: %w", e.Manager, err)
		}
		result = append(result, ownership{manager: e.Manager, apply: e.Operation == metav1.ManagedFieldsOperationApply, fields: fields})
	}
	return result, nil
}

// ours picks what manager owns by apply.
func ours(all []ownership, manager string) []ownership {
	return slices.DeleteFunc(slices.Clone(all), func(o ownership) bool { return o.manager != manager || !o.apply })
}

// below descends into one field or list item. Who owns the whole of an atomic
// value owns what is below it.
func below(all []ownership, matches func(key string) bool) []ownership {
	var result []ownership
	for _, o := range all {
		if len(o.fields) == 0 {
			result = append(result, o)
		}
		for key, value := range o.fields {
			if fields, is := value.(map[string]any); is && matches(key) {
				result = append(result, ownership{manager: o.manager, apply: o.apply, fields: fields})
			}
		}
	}
	return result
}
