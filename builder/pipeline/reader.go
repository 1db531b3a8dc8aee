package pipeline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/slipway-cd/slipway/manifests/typo"
)

// maxBytes bounds the file, maxFaults the list of what is wrong with it.
const (
	maxBytes  = 256 << 10
	maxFaults = 20
	maxHeld   = 1000 // of the faults, before they are sorted: what costs memory is bounded whatever the file says
)

// Error is one fault of the file.
type Error struct {
	File         string
	Line, Column int // from 1
	Cause        string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Cause)
}

// reader collects the faults of one file.
type reader struct {
	faults  []*Error // the first maxHeld
	dropped int      // how many more there were
}

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	r.failAt(n.Line, n.Column, format, args...)
}

func (r *reader) failAt(line, column int, format string, args ...any) {
	if len(r.faults) == maxHeld {
		r.dropped++
		return
	}
	r.faults = append(r.faults, &Error{File: Path, Line: max(line, 1), Column: max(column, 1), Cause: fmt.Sprintf(format, args...)})
}

// err joins the faults in the order of the file.
func (r *reader) err() error {
	slices.SortStableFunc(r.faults, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var all []error
	for i, fault := range r.faults {
		if i == maxFaults {
			all = append(all, fmt.Errorf("%s: and %d more", Path, len(r.faults)-maxFaults+r.dropped))
			break
		}
		all = append(all, fault)
	}
	return errors.Join(all...)
}

// document returns the top of the only document; nil after a fault.
func (r *reader) document(content []byte) *yaml.Node {
	if len(content) > maxBytes {
		r.failAt(1, 1, "%d bytes; at most %d are read (put scripts into files of their own)", len(content), maxBytes)
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		r.failAt(1, 1, "the file is empty (it needs name and stages)")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := decoder.Decode(&more); err == nil {
		r.fail(&more, "a second YAML document (remove the line ---; a file holds one pipeline)")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	return doc.Content[0]
}

// syntax turns "yaml: line 3: cause" into a fault with a line.
func (r *reader) syntax(err error) {
	cause, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if rest, found := strings.CutPrefix(cause, "line "); found {
		if number, after, found := strings.Cut(rest, ": "); found {
			if n, err := strconv.Atoi(number); err == nil {
				line, cause = n, after
			}
		}
	}
	r.failAt(line, 1, "not YAML: %s", cause)
}

// fields returns the values of a mapping by key; nil when n is none.
func (r *reader) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s is %s; want a mapping with %s", what, kindOf(n), strings.Join(known, ", "))
		return nil
	}
	out := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value):
			r.fail(key, "unknown key %q in %s (%s)", key.Value, what, typo.WayOut(key.Value, known))
		case out[key.Value] != nil:
			r.fail(key, "key %q is there already in line %d (remove one)", key.Value, out[key.Value].Line)
		default:
			out[key.Value] = value
		}
	}
	return out
}

// list returns the items of a sequence; a missing or empty value has none.
func (r *reader) list(n *yaml.Node, what string) []*yaml.Node {
	if empty(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "%s is %s; want a list", what, kindOf(n))
		return nil
	}
	return n.Content
}

// text reads a string. Numbers and the like are refused, because YAML has changed them by then: 1.10 is 1.1.
func (r *reader) text(n *yaml.Node, what string) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		hint := "want a string"
		if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			hint = "want a string (put it in quotes)"
		}
		r.fail(n, "%s is %s; %s", what, kindOf(n), hint)
		return ""
	}
	if strings.ContainsRune(n.Value, 0) {
		r.fail(n, "%s holds a zero byte (remove it)", what)
		return ""
	}
	return n.Value
}

// texts reads a mapping of strings, such as env.
func (r *reader) texts(n *yaml.Node, what string, check func(key *yaml.Node)) map[string]string {
	if empty(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s is %s; want a mapping of names to strings", what, kindOf(n))
		return nil
	}
	out := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			r.fail(key, "a key of %s is %s; want a name", what, kindOf(key))
			continue
		}
		if _, twice := out[key.Value]; twice {
			r.fail(key, "key %q is there already (remove one)", key.Value)
			continue
		}
		check(key)
		out[key.Value] = r.text(value, what+"."+key.Value)
	}
	return out
}

func (r *reader) flag(n *yaml.Node, what string) bool {
	if n == nil {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		r.fail(n, "%s is %s; want true or false", what, kindOf(n))
		return false
	}
	switch strings.ToLower(n.Value) { // YAML knows true, True and TRUE
	case "true":
		return true
	case "false":
	default: // only by a tag: !!bool yes
		r.fail(n, "%s is %q; want true or false", what, n.Value)
	}
	return false
}

func (r *reader) number(n *yaml.Node, what string, most int) int {
	if n == nil {
		return 0
	}
	value, err := strconv.Atoi(n.Value)
	octal := len(n.Value) > 1 && n.Value[0] == '0' // 010 is 8 to YAML 1.1 and 10 to people
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || octal || value < 0 || value > most {
		r.fail(n, "%s is %s; want a number from 0 to %d", what, kindOf(n), most)
		return 0
	}
	return value
}

// empty reports whether a value is missing or null. What is null only by its tag, !!null foo, says something.
func empty(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Style&yaml.TaggedStyle == 0
}

// blank reports whether a value is the empty string.
func blank(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value == ""
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which is not followed (write it out)"
	default:
		if n.Tag == "!!null" {
			return "empty"
		}
		return fmt.Sprintf("%q (%s)", n.Value, strings.TrimPrefix(n.Tag, "!!"))
	}
}
