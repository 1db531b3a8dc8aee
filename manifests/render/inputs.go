package render

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Input is a ConfigMap or Secret that a Spec names, as it was read for one render.
type Input struct {
	Kind v1alpha1.InputKind
	Name string
	Data map[string][]byte
}

// String names the Input and keeps quiet about its data.
func (i Input) String() string { return string(i.Kind) + " " + i.Name }

// GoString is String: data is not for printing.
func (i Input) GoString() string { return i.String() }

// input finds what field refers to. found is false for an optional one that is missing.
func (s Spec) input(field string, reference v1alpha1.InputReference) (data map[string][]byte, found bool, err error) {
	at := slices.IndexFunc(s.Inputs, func(one Input) bool { return one.Kind == reference.Kind && one.Name == reference.Name })
	switch {
	case at >= 0:
		return s.Inputs[at].Data, true, nil
	case reference.Optional:
		return nil, false, nil
	}
	return nil, false, &Error{Path: s.Path, Cause: fmt.Errorf(
		"%s: %s %s is not there (create it in the Application's namespace, or mark it optional)", field, reference.Kind, reference.Name,
	)}
}

// sensitive reports whether values of a Secret may be in what s renders to, wherever they end up.
func (s Spec) sensitive() bool {
	return slices.ContainsFunc(s.Inputs, func(one Input) bool { return one.Kind == v1alpha1.InputSecret })
}

// secrets returns the texts of s that no error may hold.
func (s Spec) secrets() []string {
	var values []string
	for _, one := range s.Inputs {
		if one.Kind != v1alpha1.InputSecret {
			continue
		}
		for _, value := range one.Data {
			values = append(values, string(value))
			var content any
			if checkAliases(value) == nil && yaml.Unmarshal(value, &content) == nil {
				values = append(values, leavesOf(content)...)
			}
		}
	}
	return values
}

// leavesOf returns the scalars of a tree as text.
func leavesOf(value any) []string {
	var leaves []string
	switch value := value.(type) {
	case nil, bool:
	case map[string]any:
		for _, child := range value {
			leaves = append(leaves, leavesOf(child)...)
		}
	case []any:
		for _, child := range value {
			leaves = append(leaves, leavesOf(child)...)
		}
	default:
		leaves = append(leaves, fmt.Sprint(value))
	}
	return leaves
}

// hidden returns values and the forms in which they could be quoted, longest first.
func hidden(values []string) []string {
	var texts []string
	for _, value := range values {
		if decoded, err := base64.StdEncoding.DecodeString(value); err == nil {
			texts = append(texts, string(decoded))
		}
		texts = append(texts, base64.StdEncoding.EncodeToString([]byte(value)), fmt.Sprintf("%q", value), value)
		for line := range strings.Lines(value) {
			texts = append(texts, strings.TrimSpace(line))
		}
	}
	texts = slices.DeleteFunc(texts, func(text string) bool { return len(text) < minSecretBytes })
	slices.SortFunc(texts, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(texts)
}

// hush returns err without anything of the Secrets among the inputs.
func (s Spec) hush(err error) error {
	var located *Error
	if err == nil || !s.sensitive() || !errors.As(err, &located) {
		return err
	}
	return redacted(err, hidden(s.secrets()))
}
