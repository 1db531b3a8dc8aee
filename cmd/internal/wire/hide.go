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
)

// masked stands where a secret value was.
const masked = "(masked)"

// shortestSecret is what is looked for in other objects: shorter values would mask half of every text.
const shortestSecret = 4

// hider returns what takes the values of the Secrets of a Set out of text, those that run and those that Git asks for: they
// may have been written into ConfigMaps, annotations and environment variables, too.
func (d *Differ) hider(ctx context.Context, set manifests.Set) (func(string) string, error) {
	var values []string
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
