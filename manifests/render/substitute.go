package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-cd/slipway/manifests"
)

const substituteDisabled = "disabled"

// substituteAll replaces the variables of spec in objects. Values are put into
// the fields of the tree and not into text, so none can add a field or an object.
func substituteAll(objects []located, spec Spec) error {
	if spec.Substitute == nil {
		return nil
	}
	values, err := variablesOf(spec)
	if err != nil {
		return err
	}
	s := substitution{values: values, strict: spec.Substitute.Strict, left: maxSetBytes}
	for _, one := range objects {
		switch choice := one.object.GetAnnotations()[manifests.AnnotationSubstitute]; choice {
		case substituteDisabled:
			continue
		case "":
		default:
			return one.err(fmt.Errorf("%s: annotation %s: the only value is %q", nameOf(one), manifests.AnnotationSubstitute, substituteDisabled))
		}
		name := nameOf(one)
		if err := s.object(one.object.Object); err != nil {
			if errors.Is(err, ErrLimit) {
				return one.err(limitText(name + ": " + err.Error()))
			}
			return one.err(fmt.Errorf("%s: %w", name, err))
		}
	}
	return nil
}

func nameOf(one located) string { return one.object.GetKind() + " " + one.object.GetName() }

// variablesOf merges what spec.substitute names: ConfigMaps and Secrets in order, its own variables last.
func variablesOf(spec Spec) (map[string]string, error) {
	values := map[string]string{}
	for i, reference := range spec.Substitute.From {
		data, found, err := spec.input(fmt.Sprintf("spec.substitute.from[%d]", i), reference)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		for name, value := range data {
			if isVariable(name) {
				values[name] = string(value)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Substitute.Variables)) {
		if !isVariable(name) {
			return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("spec.substitute.variables: %q is not a name of letters, digits and _", name)}
		}
		values[name] = spec.Substitute.Variables[name]
	}
	return values, nil
}

func isVariable(name string) bool { return name != "" && variableLength(name) == len(name) }

// variableLength is the length of the variable's name that text starts with.
func variableLength(text string) int {
	for i, c := range []byte(text) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(text)
}

// substitution is pure: its outcome depends on its fields and the tree alone.
// Its errors name variables and fields, never what is in them.
type substitution struct {
	values map[string]string
	strict bool
	left   int // bytes that may still be put in
}

// object replaces the variables in the scalars of content, which keeps its
// fields and lists as they are.
func (s *substitution) object(content map[string]any) error {
	kind, _ := content["kind"].(string)
	version, _ := content["apiVersion"].(string)
	_, err := s.value(content, fieldPath{plainData: version == "v1" && (kind == "ConfigMap" || kind == "Secret")})
	return err
}

func (s *substitution) value(value any, at fieldPath) (any, error) {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if strings.Contains(key, "${") {
				return nil, fmt.Errorf("%s: a key holds a variable, and only values may (annotate the object with %s: %s if none is meant)",
					at.join(".*"), manifests.AnnotationSubstitute, substituteDisabled)
			}
			replaced, err := s.value(value[key], at.key(key))
			if err != nil {
				return nil, err
			}
			value[key] = replaced
		}
	case []any:
		for i := range value {
			replaced, err := s.value(value[i], at.item(i))
			if err != nil {
				return nil, err
			}
			value[i] = replaced
		}
	case string:
		return s.scalar(value, at)
	}
	return value, nil
}

func (s *substitution) scalar(text string, at fieldPath) (any, error) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	e := expansion{s: s, text: text}
	result, err := e.run(0)
	if errors.Is(err, ErrLimit) {
		return nil, limitText(at.join("") + ": " + err.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at.join(""), err)
	}
	if e.literal || at.isText() {
		return result, nil
	}
	return plainScalar(result), nil
}

// expansion walks once through the text of one scalar.
type expansion struct {
	s       *substitution
	text    string
	at      int
	literal bool // there is text beside the variables
}

// run expands up to the end of the text or, within a default, up to its "}".
func (e *expansion) run(depth int) (string, error) {
	if depth > maxDepth {
		return "", limitf("defaults are nested more than %d deep: the limit", maxDepth)
	}
	var out strings.Builder
	for e.at < len(e.text) {
		rest := e.text[e.at:]
		switch {
		case depth > 0 && rest[0] == '}':
			return out.String(), nil
		case strings.HasPrefix(rest, "$${"):
			length := len("$${")
			if depth > 0 { // its } is not that of the default
				length = max(length, strings.IndexByte(rest, '}')+1)
			}
			out.WriteString(rest[1:length])
			e.at += length
			e.literal = e.literal || depth == 0
		case strings.HasPrefix(rest, "${"):
			e.at += 2
			value, err := e.variable(depth)
			if err != nil {
				return "", err
			}
			if e.s.left -= len(value); e.s.left < 0 {
				return "", limitf("variables put in more than %d bytes: the limit", maxSetBytes)
			}
			out.WriteString(value)
		default:
			out.WriteByte(rest[0])
			e.at++
			e.literal = e.literal || depth == 0
		}
	}
	if depth > 0 {
		return "", fmt.Errorf("a variable has no closing } (%s)", wayOut())
	}
	return out.String(), nil
}

// variable expands what follows "${", its "}" included.
func (e *expansion) variable(depth int) (string, error) {
	name := e.text[e.at : e.at+variableLength(e.text[e.at:])]
	e.at += len(name)
	rest := e.text[e.at:]
	value, defined := e.s.values[name]
	switch {
	case name != "" && strings.HasPrefix(rest, "}"):
		e.at++
		if !defined && e.s.strict {
			return "", fmt.Errorf("variable %s is not defined (give it in spec.substitute, or a default by ${%s:=...})", name, name)
		}
		return value, nil
	case name != "" && (strings.HasPrefix(rest, ":=") || strings.HasPrefix(rest, ":-")):
		e.at += 2
		fallback, err := e.run(depth + 1)
		if err != nil {
			return "", err
		}
		e.at++ // its }
		if value == "" {
			return fallback, nil
		}
		return value, nil
	}
	return "", fmt.Errorf("a ${ begins none of ${NAME}, ${NAME:=default}, ${NAME:-default} (%s)", wayOut())
}

func wayOut() string {
	return "if no variable is meant: write $${, or annotate the object with " + manifests.AnnotationSubstitute + ": " + substituteDisabled
}

// plainScalar reads text as an unquoted scalar of YAML: true, false, a decimal
// number that is written back the same, or text, which quotes around it make sure of.
func plainScalar(text string) any {
	switch {
	case text == "true" || text == "false":
		return text == "true"
	case len(text) > 1 && text[0] == '\'' && text[len(text)-1] == '\'':
		return strings.ReplaceAll(text[1:len(text)-1], "''", "'")
	case len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"':
		var inner string
		if json.Unmarshal([]byte(text), &inner) != nil {
			return text
		}
		return inner
	}
	if number, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(number, 10) == text {
		return number
	}
	if regexp.MustCompile(`^-?[0-9]+\.[0-9]+$`).MatchString(text) {
		if number, err := strconv.ParseFloat(text, 64); err == nil && strconv.FormatFloat(number, 'f', -1, 64) == text {
			return number
		}
	}
	return text
}

// fieldPath is the way from an object to one of its fields.
type fieldPath struct {
	steps     []string // keys, and items as "[0]"
	plainData bool     // of a ConfigMap or Secret
}

func (p fieldPath) key(name string) fieldPath {
	return fieldPath{steps: append(p.steps[:len(p.steps):len(p.steps)], name), plainData: p.plainData}
}

func (p fieldPath) item(i int) fieldPath { return p.key(fmt.Sprintf("[%d]", i)) }

// join returns "spec.containers[0].image".
func (p fieldPath) join(suffix string) string {
	joined := strings.ReplaceAll(strings.Join(p.steps, "."), ".[", "[") + suffix
	return strings.TrimPrefix(joined, ".")
}

// last returns the n-th step from the end, the last for 1.
func (p fieldPath) last(n int) string {
	if n > len(p.steps) {
		return ""
	}
	return p.steps[len(p.steps)-n]
}

// isText reports whether Kubernetes takes nothing but text there, also if it reads like a number.
func (p fieldPath) isText() bool {
	switch p.steps[0] {
	case "apiVersion", "kind", "metadata":
		return true
	case "data", "stringData", "binaryData":
		if p.plainData {
			return true
		}
	}
	switch p.last(1) {
	case "name", "namespace", "image":
		return true
	case "value":
		return p.last(3) == "env"
	}
	switch p.last(2) {
	case "labels", "annotations", "matchLabels", "nodeSelector", "selector", "args", "command":
		return true
	}
	return false
}
