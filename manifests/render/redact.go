package render

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	maxCauseBytes  = 600
	minSecretBytes = 4 // shorter values would turn every message into placeholders
)

// redacted returns err with nothing of secrets in it, shortened to one line.
func redacted(err error, secrets []string) error {
	var located *Error
	if !errors.As(err, &located) {
		return errors.New(redactText(err.Error(), secrets))
	}
	cause := redactText(located.Cause.Error(), secrets)
	if errors.Is(err, ErrLimit) {
		return &Error{Path: located.Path, Line: located.Line, Cause: limitText(cause)}
	}
	return &Error{Path: located.Path, Line: located.Line, Cause: errors.New(cause)}
}

// redactText leaves out what libraries quote: patches, whole configurations,
// long strings, and everything after the first line.
func redactText(text string, secrets []string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	text = regexp.MustCompile(`\[patch: .*`).ReplaceAllString(text, "[patch left out]")
	text = regexp.MustCompile("(\"(?:[^\"\\\\]|\\\\.){120,}\"|`[^`]{120,}`)").ReplaceAllString(text, "[content left out]")
	if len(text) > maxCauseBytes {
		text = strings.ToValidUTF8(text[:maxCauseBytes], "") + "..."
	}
	return text
}

// secrets collects the values of the Secrets and secret generators among the files that were read.
func (r *repository) secrets() []string {
	values := slices.Clone(r.hidden)
	for _, one := range r.files {
		if !isManifest(one.path) && path.Base(one.path) != "Kustomization" || checkAliases(one.content) != nil {
			continue
		}
		for _, document := range splitDocuments(one.content) {
			var content map[string]any
			if yaml.Unmarshal(document.content, &content) == nil {
				values = append(values, r.secretsOf(path.Dir(one.path), content)...)
			}
		}
	}
	return values
}

// dataOf returns what is in the Secrets among objects.
func dataOf(objects []located) []string {
	var values []string
	for _, one := range objects {
		if one.object.GetKind() != "Secret" {
			continue
		}
		for _, field := range []string{"data", "stringData"} {
			values = append(values, leavesOf(one.object.Object[field])...)
		}
	}
	return values
}

func (r *repository) secretsOf(dir string, content map[string]any) []string {
	var values []string
	if content["kind"] == "Secret" {
		for _, field := range []string{"data", "stringData"} {
			entries, _ := content[field].(map[string]any)
			for _, value := range entries {
				if text, ok := value.(string); ok {
					values = append(values, text)
				}
			}
		}
	}
	generators, _ := content["secretGenerator"].([]any)
	for _, item := range generators {
		generator, _ := item.(map[string]any)
		for _, literal := range stringsOf(generator["literals"]) {
			_, value, _ := strings.Cut(literal, "=")
			values = append(values, value)
		}
		for _, name := range slices.Concat(stringsOf(generator["files"]), stringsOf(generator["envs"]), stringsOf(generator["env"])) {
			_, after, found := strings.Cut(name, "=")
			if found {
				name = after
			}
			values = append(values, r.valuesOf(path.Join(dir, name))...)
		}
	}
	return values
}

// valuesOf returns the content of a file that was read, and the values of its lines KEY=VALUE.
func (r *repository) valuesOf(name string) []string {
	var values []string
	for _, one := range r.files {
		if one.path != name {
			continue
		}
		values = append(values, string(one.content))
		for line := range strings.Lines(string(one.content)) {
			if _, value, found := strings.Cut(strings.TrimSpace(line), "="); found {
				values = append(values, value)
			}
		}
	}
	return values
}

func stringsOf(value any) []string {
	if one, ok := value.(string); ok {
		return []string{one}
	}
	items, _ := value.([]any)
	var texts []string
	for _, item := range items {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}
