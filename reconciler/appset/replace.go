package appset

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/manifests/typo"
)

const (
	opens, closes = "{{", "}}"
	literal       = "{{{{" // stands for opens
	literalHint   = `for a "{{" that stays write "{{{{"`
)

// replaceAll replaces variables in the strings of a tree; at says where it is.
func replaceAll(tree any, at string, variables map[string]string) (any, error) {
	switch value := tree.(type) {
	case string:
		out, err := replace(value, variables)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		return out, nil
	case []any:
		out := make([]any, len(value))
		for i, item := range value {
			var err error
			if out[i], err = replaceAll(item, fmt.Sprintf("%s[%d]", at, i), variables); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(value))
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if strings.Contains(key, opens) {
				return nil, fmt.Errorf("%s: the key %q: variables are replaced in values only", at, key)
			}
			var err error
			if out[key], err = replaceAll(value[key], at+"."+key, variables); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return tree, nil
}

// replace fills in the variables of one string. What comes in is not looked at again.
func replace(text string, variables map[string]string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, opens)
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		if after, escaped := strings.CutPrefix(rest, literal[len(opens):]); escaped {
			out.WriteString(opens)
			text = after
			continue
		}
		inner, after, closed := strings.Cut(rest, closes)
		if !closed {
			return "", errors.New("{{ without }}; " + literalHint)
		}
		value, known := variables[strings.TrimSpace(inner)]
		if !known {
			return "", unknown(strings.TrimSpace(inner), variables)
		}
		out.WriteString(value)
		text = after
	}
}

func unknown(name string, variables map[string]string) error {
	return fmt.Errorf("there is no variable {{%s}}; %s; %s", name, typo.WayOut(name, slices.Sorted(maps.Keys(variables))), literalHint)
}
