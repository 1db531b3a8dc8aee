package wire

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler"
)

// masked stands where a secret value was.
const masked = "(masked)"

// shortestSecret is what is looked for in other objects: shorter values would mask half of every text.
const shortestSecret = 4

// hider returns what takes secret values out of text: those of the Secrets of a Set, as they run and as Git asks for them,
// and those of the Secrets that the Application takes values from. They may have been written into ConfigMaps, annotations
// and environment variables, too.
func (d *Differ) hider(ctx context.Context, app *v1alpha1.Application, set manifests.Set) (func(string) string, error) {
	var values []string
	inputs, err := reconciler.ReadInputs(ctx, d.kube, app)
	if err != nil {
		return nil, err
	}
	for _, input := range inputs {
		if input.Kind != v1alpha1.InputSecret {
			continue
		}
		for _, value := range input.Data {
			values = append(values, value.Reveal())
		}
	}
	for _, object := range set.Objects {
		if ref := manifests.RefOf(object); ref.Group != "" || ref.Kind != "Secret" {
			continue
		}
		values = append(values, valuesOf(object.Object)...)
		var live corev1.Secret
		err := d.kube.Get(ctx, client.ObjectKeyFromObject(object), &live)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("%s: what has to be masked is not known: %w", manifests.RefOf(object), err)
		}
		for _, value := range live.Data {
			values = append(values, string(value))
		}
	}
	return hiding(values), nil
}

// valuesOf are the values of a rendered Secret.
func valuesOf(object map[string]any) []string {
	var values []string
	for _, field := range []string{"data", "stringData"} {
		entries, _ := object[field].(map[string]any)
		for _, entry := range entries {
			text, is := entry.(string)
			if !is {
				continue
			}
			if decoded, err := base64.StdEncoding.DecodeString(text); field == "data" && err == nil {
				text = string(decoded)
			}
			values = append(values, text)
		}
	}
	return values
}

// hiding replaces values, their lines, and the forms that they take in JSON, in JSON within JSON and in base64.
func hiding(values []string) func(string) string {
	var forms []string
	add := func(value string) {
		if value = strings.TrimSpace(value); len(value) < shortestSecret || value == "true" || value == "false" || value == "null" {
			return
		}
		forms = append(forms, value, base64.StdEncoding.EncodeToString([]byte(value)))
		for _, once := range []string{quoted(value, false), quoted(value, true)} {
			forms = append(forms, once, quoted(once, false), quoted(once, true))
		}
	}
	for _, value := range values {
		add(value)
		forms = append(forms, base64.StdEncoding.EncodeToString([]byte(value)))
		for line := range strings.Lines(value) {
			add(line)
			if _, right, found := strings.Cut(line, "="); found {
				add(right)
			}
		}
	}
	forms = slices.DeleteFunc(forms, func(form string) bool { return len(form) < shortestSecret })
	// The longest first: what is left of one that holds another would still tell something.
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
	var pairs []string
	for _, form := range slices.Compact(forms) {
		pairs = append(pairs, form, masked)
	}
	return strings.NewReplacer(pairs...).Replace
}

// quoted is value as it stands between the quotes of JSON, with or without what Go escapes for HTML.
func quoted(value string, html bool) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(html)
	_ = encoder.Encode(value) // a string can always be encoded
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}
