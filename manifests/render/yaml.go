package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests"
)

// located is an object with the place it came from.
type located struct {
	object *unstructured.Unstructured
	path   string
	line   int
}

func (l located) err(cause error) *Error { return &Error{Path: l.path, Line: l.line, Cause: cause} }

// decodeObjects reads the documents of a YAML or JSON file. With strict a key
// that is given twice is an error; charts rely on the last one winning.
func decodeObjects(name string, content []byte, strict bool) ([]located, error) {
	if path.Ext(name) == ".json" {
		return decodeJSON(name, content)
	}
	if err := checkAliases(content); err != nil {
		return nil, &Error{Path: name, Cause: err}
	}
	toJSON := yaml.YAMLToJSON
	if strict {
		toJSON = yaml.YAMLToJSONStrict
	}
	var objects []located
	for _, document := range splitDocuments(content) {
		encoded, err := toJSON(document.content)
		if err != nil {
			return nil, yamlError(name, document.line, err)
		}
		objects, err = appendDocument(objects, name, document.line, encoded)
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

func decodeJSON(name string, content []byte) ([]located, error) {
	var objects []located
	decoder := json.NewDecoder(bytes.NewReader(content))
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		line := 1 + bytes.Count(content[:min(int(decoder.InputOffset()), len(content))], []byte("\n"))
		if err != nil {
			return nil, &Error{Path: name, Line: line, Cause: fmt.Errorf("not valid JSON: %w", err)}
		}
		if objects, err = appendDocument(objects, name, line, raw); err != nil {
			return nil, err
		}
	}
}

// appendDocument appends the objects of one document: none, one, or the items of a List.
func appendDocument(objects []located, name string, line int, encoded []byte) ([]located, error) {
	if trimmed := bytes.TrimSpace(encoded); len(trimmed) == 0 || string(trimmed) == "null" {
		return objects, nil
	}
	var content map[string]any
	if err := utiljson.Unmarshal(encoded, &content); err != nil {
		return nil, &Error{Path: name, Line: line, Cause: errors.New("not a Kubernetes object: a mapping with apiVersion and kind is expected")}
	}
	return appendObject(objects, located{object: &unstructured.Unstructured{Object: content}, path: name, line: line}, 0)
}

func appendObject(objects []located, one located, depth int) ([]located, error) {
	if depth > maxDepth {
		return nil, one.err(limitf("Lists are nested more than %d deep: the limit", maxDepth))
	}
	if one.object.GetAPIVersion() == "" || one.object.GetKind() == "" {
		return nil, one.err(errors.New("not a Kubernetes object: apiVersion and kind are required"))
	}
	items, isList := one.object.Object["items"].([]any)
	if !isList || !strings.HasSuffix(one.object.GetKind(), "List") {
		if len(objects) >= maxObjects {
			return nil, one.err(limitf("more than %d objects: the limit", maxObjects))
		}
		return append(objects, one), nil
	}
	for i, item := range items {
		content, ok := item.(map[string]any)
		if !ok {
			return nil, one.err(fmt.Errorf("items[%d] of the %s is not an object", i, one.object.GetKind()))
		}
		var err error
		objects, err = appendObject(objects, located{&unstructured.Unstructured{Object: content}, one.path, one.line}, depth+1)
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// document is one document of a YAML stream with the line that it starts at.
type document struct {
	content []byte
	line    int
}

// splitDocuments cuts at the marks "---" and "...". A mark at the start of a
// line ends a document even within a block scalar.
func splitDocuments(content []byte) []document {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	var documents []document
	current := document{line: 1}
	line := 0
	for part := range bytes.Lines(content) {
		line++
		switch {
		case isMark(part, "..."):
			documents = append(documents, current)
			current = document{line: line + 1}
		case isMark(part, "---"):
			documents = append(documents, current)
			current = document{line: line, content: append([]byte("   "), part[3:]...)}
		case bytes.HasPrefix(part, []byte("%")) && len(bytes.TrimSpace(current.content)) == 0:
			current.content = append(current.content, '\n') // a directive
		default:
			current.content = append(current.content, part...)
		}
	}
	return append(documents, current)
}

func isMark(line []byte, mark string) bool {
	return bytes.HasPrefix(line, []byte(mark)) && (len(line) == 3 || bytes.ContainsRune([]byte(" \t\r\n"), rune(line[3])))
}

// yamlError finds the line in a message of the YAML library, counted from the
// document's first line, and drops what it quotes of the content.
func yamlError(name string, first int, err error) *Error {
	text := err.Error()
	line := first
	if found := regexp.MustCompile(`line (\d+): `).FindStringSubmatchIndex(text); found != nil {
		number, _ := strconv.Atoi(text[found[2]:found[3]])
		line, text = first+max(number, 1)-1, text[found[1]:]
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "error converting YAML to JSON: "), "yaml: ")
	text, _, _ = strings.Cut(text, "\n")
	return &Error{Path: name, Line: line, Cause: fmt.Errorf("not valid YAML: %s", text)}
}

// checkAliases refuses YAML whose aliases expand to too much, or contain themselves.
func checkAliases(content []byte) error {
	if !bytes.ContainsRune(content, '&') || !bytes.ContainsRune(content, '*') {
		return nil
	}
	decoder := kyaml.NewDecoder(bytes.NewReader(content))
	counter := aliasCounter{sizes: map[*kyaml.Node]int{}}
	for {
		var node kyaml.Node
		if decoder.Decode(&node) != nil { // the end, or a mistake that the one who parses it reports
			return nil
		}
		counter.count(&node)
		if counter.added > maxAliasNodes {
			return limitf("YAML aliases expand to more than %d nodes: the limit", maxAliasNodes)
		}
		if counter.endless {
			return limitText("a YAML alias contains itself: endless recursion")
		}
	}
}

// aliasCounter counts the nodes that aliases stand for, each anchor once.
type aliasCounter struct {
	sizes   map[*kyaml.Node]int // -1 while being counted
	added   int
	endless bool
}

func (c *aliasCounter) count(node *kyaml.Node) int {
	if size, ok := c.sizes[node]; ok {
		if size < 0 {
			c.endless = true
			return 1
		}
		return size
	}
	c.sizes[node] = -1
	size := 1
	if node.Kind == kyaml.AliasNode && node.Alias != nil {
		size = c.count(node.Alias)
		c.added = min(c.added+size, maxAliasNodes+1)
	}
	for _, child := range node.Content {
		size += c.count(child)
	}
	size = min(size, maxAliasNodes+1)
	c.sizes[node] = size
	return size
}

// decodeSet reads objects as the child or the memo has them.
func decodeSet(content []byte) (manifests.Set, error) {
	var values []any
	if err := utiljson.Unmarshal(content, &values); err != nil {
		return manifests.Set{}, err
	}
	objects := make([]*unstructured.Unstructured, len(values))
	for i, value := range values {
		object, ok := value.(map[string]any)
		if !ok {
			return manifests.Set{}, errors.New("not a list of objects")
		}
		objects[i] = &unstructured.Unstructured{Object: object}
	}
	return manifests.NewSet(objects)
}
