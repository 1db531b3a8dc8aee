package environment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/slipway-cd/slipway/manifests/typo"
)

// maxBytes bounds each file: they are written by people or by Slipway and are small.
const maxBytes = 1 << 20

// maxFaults is how many faults are listed before reading stops to be helpful.
const maxFaults = 20

// Error is one fault of a file.
type Error struct {
	File  string
	Line  int // from 1
	Cause string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Cause) }

// reader collects the faults of one file.
type reader struct {
	file   string
	faults []error
}

func (r *reader) fail(line int, format string, args ...any) {
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, &Error{File: r.file, Line: max(line, 1), Cause: fmt.Sprintf(format, args...)})
	}
}

func (r *reader) err() error { return errors.Join(r.faults...) }

// document returns the fields of the only document, after checking apiVersion and kind.
func (r *reader) document(content []byte, kind string, known ...string) map[string]*yaml.Node {
	if len(content) > maxBytes {
		r.fail(1, "%d bytes; at most %d are read", len(content), maxBytes)
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		r.fail(1, "the file is empty")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := decoder.Decode(&more); err == nil {
		r.fail(more.Line, "a second YAML document; one is read")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	top := doc.Content[0]
	f := r.fields(top, "the file", append([]string{"apiVersion", "kind"}, known...)...)
	if f == nil {
		return nil
	}
	if got := r.required(top, f, "apiVersion"); got != "" && got != apiVersion {
		r.fail(f["apiVersion"].Line, "apiVersion %q: this version reads %q", got, apiVersion)
	}
	if got := r.required(top, f, "kind"); got != "" && got != kind {
		r.fail(f["kind"].Line, "kind %q: want %q", got, kind)
	}
	return f
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
	r.fail(line, "not YAML: %s", cause)
}

// fields returns the values of a mapping by key; nil when n is none.
func (r *reader) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, "%s is %s; want a mapping with %s", what, kindOf(n), strings.Join(known, ", "))
		return nil
	}
	out := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || !contains(known, key.Value) {
			r.fail(key.Line, "unknown key %q in %s; %s", key.Value, what, typo.WayOut(key.Value, known))
			continue
		}
		if first := out[key.Value]; first != nil {
			r.fail(key.Line, "key %q is there already in line %d", key.Value, first.Line)
			continue
		}
		out[key.Value] = value
	}
	return out
}

// list returns the items of a sequence. A missing or empty value is an empty list.
func (r *reader) list(n *yaml.Node, what string) []*yaml.Node {
	if n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.fail(n.Line, "%s is %s; want a list", what, kindOf(n))
		return nil
	}
	return n.Content
}

func (r *reader) required(parent *yaml.Node, fields map[string]*yaml.Node, key string) string {
	n := fields[key]
	if n == nil {
		r.fail(parent.Line, "%q is missing", key)
		return ""
	}
	s := r.text(n, key)
	if s == "" && n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		r.fail(n.Line, "%s is empty", key)
	}
	return s
}

func (r *reader) optional(fields map[string]*yaml.Node, key string) string {
	if n := fields[key]; n != nil {
		return r.text(n, key)
	}
	return ""
}

func (r *reader) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		r.fail(n.Line, "%s is %s; want a string", what, kindOf(n))
		return ""
	}
	return n.Value
}

// moment reads an RFC 3339 time, quoted or not.
func (r *reader) moment(parent *yaml.Node, fields map[string]*yaml.Node, key string) time.Time {
	n := fields[key]
	if n == nil {
		r.fail(parent.Line, "%q is missing", key)
		return time.Time{}
	}
	if n.Kind != yaml.ScalarNode {
		r.fail(n.Line, "%s is %s; want a time", key, kindOf(n))
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil || t.UTC().Year() > 9999 || t.UTC().Year() < 0 {
		r.fail(n.Line, "%s %q: want a time like 2026-01-31T08:00:00Z", key, n.Value)
		return time.Time{}
	}
	return seconds(t)
}

// seconds is the precision that the files keep.
func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which is not followed"
	default:
		if n.Tag == "!!null" {
			return "empty"
		}
		return fmt.Sprintf("%q (%s)", n.Value, strings.TrimPrefix(n.Tag, "!!"))
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
