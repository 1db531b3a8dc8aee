package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// parseSopsDotenv reads lines KEY=VALUE; SOPS keeps its metadata in keys of their own.
func parseSopsDotenv(content []byte) (*sopsFile, error) {
	root := &kyaml.Node{Kind: kyaml.MappingNode, Tag: "!!map"}
	metadata := map[string]string{}
	for line := range strings.SplitSeq(string(content), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found {
			return nil, errors.New("is encrypted with SOPS, but has a line without =")
		}
		value = strings.ReplaceAll(value, `\n`, "\n")
		if name, own := strings.CutPrefix(key, sopsKey+"_"); own {
			metadata[name] = value
			continue
		}
		root.Content = append(root.Content, textNode(key), textNode(value))
	}
	return &sopsFile{documents: []*kyaml.Node{root}, metadata: flatMetadata(metadata), write: writeDotenv}, nil
}

func textNode(value string) *kyaml.Node {
	return &kyaml.Node{Kind: kyaml.ScalarNode, Tag: "!!str", Value: value}
}

// flatMetadata reads metadata whose lists and maps became parts of keys.
func flatMetadata(flat map[string]string) sopsMetadata {
	m := sopsMetadata{
		LastModified: flat["lastmodified"], MAC: flat["mac"], UnencryptedSuffix: flat["unencrypted_suffix"], EncryptedSuffix: flat["encrypted_suffix"],
		UnencryptedRegex: flat["unencrypted_regex"], EncryptedRegex: flat["encrypted_regex"],
		UnencryptedCommentRegex: flat["unencrypted_comment_regex"], EncryptedCommentRegex: flat["encrypted_comment_regex"],
		MACOnlyEncrypted: flat["mac_only_encrypted"] == "true",
	}
	pattern := regexp.MustCompile(`^(?:key_groups__list_\d+__map_)?age__list_(\d+)__map_enc$`)
	for _, key := range slices.Sorted(maps.Keys(flat)) {
		if pattern.MatchString(key) {
			m.Age = append(m.Age, sopsAge{Enc: flat[key], Recipient: flat[strings.TrimSuffix(key, "enc")+"recipient"]})
		}
	}
	return m
}

func writeDotenv(documents []*kyaml.Node) ([]byte, error) {
	var out bytes.Buffer
	for i := 0; i+1 < len(documents[0].Content); i += 2 {
		fmt.Fprintf(&out, "%s=%s\n", documents[0].Content[i].Value, strings.ReplaceAll(documents[0].Content[i+1].Value, "\n", `\n`))
	}
	return out.Bytes(), nil
}

// decodeJSONNode reads JSON with its order, which the MAC depends on.
func decodeJSONNode(content []byte) (*kyaml.Node, error) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	node, err := nextJSONNode(decoder, 0)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	return node, nil
}

func nextJSONNode(decoder *json.Decoder, depth int) (*kyaml.Node, error) {
	if depth > 2*maxDepth {
		return nil, limitf("nested more than %d deep: the limit", 2*maxDepth)
	}
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	scalar := func(tag, value string) (*kyaml.Node, error) {
		return &kyaml.Node{Kind: kyaml.ScalarNode, Tag: tag, Value: value}, nil
	}
	switch token := token.(type) {
	case string:
		return textNode(token), nil
	case bool:
		return scalar("!!bool", strconv.FormatBool(token))
	case json.Number:
		return scalar("!!float", token.String())
	case nil:
		return scalar("!!null", "null")
	case json.Delim:
		node := &kyaml.Node{Kind: kyaml.SequenceNode, Tag: "!!seq"}
		if token == '{' {
			node.Kind, node.Tag = kyaml.MappingNode, "!!map"
		}
		for decoder.More() { // keys of an object come as values
			child, err := nextJSONNode(decoder, depth+1)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		_, err := decoder.Token() // its end
		return node, err
	}
	return nil, errors.New("not JSON")
}

func encodeJSONNode(out *bytes.Buffer, node *kyaml.Node) error {
	switch {
	case node.Kind == kyaml.SequenceNode || node.Kind == kyaml.MappingNode:
		marks := "[]"
		if node.Kind == kyaml.MappingNode {
			marks = "{}"
		}
		out.WriteByte(marks[0])
		for i, child := range node.Content {
			switch {
			case i > 0 && node.Kind == kyaml.MappingNode && i%2 == 1:
				out.WriteByte(':')
			case i > 0:
				out.WriteByte(',')
			}
			if err := encodeJSONNode(out, child); err != nil {
				return err
			}
		}
		out.WriteByte(marks[1])
		return nil
	case node.ShortTag() == "!!str":
		encoded, err := json.Marshal(node.Value)
		out.Write(encoded)
		return err
	}
	out.WriteString(node.Value) // a number, true, false or null
	return nil
}
