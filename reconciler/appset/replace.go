package appset

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	if len(variables) == 0 {
		return fmt.Errorf("there is no variable {{%s}}, and no other; %s", name, literalHint)
	}
	best, least := "", 0
	for _, candidate := range slices.Sorted(maps.Keys(variables)) {
		if d := distance(name, candidate); best == "" || d < least {
			best, least = candidate, d
		}
	}
	return fmt.Errorf("there is no variable {{%s}}; the nearest is {{%s}}; %s", name, best, literalHint)
}

// distance is Levenshtein's, in bytes, of words that are not too long to be a typing error.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(diagonal+cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
