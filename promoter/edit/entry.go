package edit

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// change makes e say what after says.
func (f *file) change(e entry, after Image) error {
	insert := []string{}
	if after.NewName != "" {
		if err := f.set(e, "newName", after.NewName, &insert); err != nil {
			return err
		}
	}
	wanted, value, obsolete := "digest", after.Digest, "newTag"
	if value == "" {
		wanted, value, obsolete = "newTag", after.NewTag, "digest"
	}
	if value != "" {
		if err := f.swap(e, wanted, value, obsolete, &insert); err != nil {
			return err
		}
	}
	return f.insertKeys(e, insert)
}

// set replaces the scalar at key, or asks for the key to be inserted.
func (f *file) set(e entry, key, value string, insert *[]string) error {
	v := e.fields[key].value
	if v == nil {
		*insert = append(*insert, key+": "+scalar(value))
		return nil
	}
	if v.Value == value {
		return nil
	}
	return f.replace(v, value)
}

// swap sets wanted and takes obsolete out. Where only obsolete is there, its
// line becomes that of wanted, so that a comment on it stays.
func (f *file) swap(e entry, wanted, value, obsolete string, insert *[]string) error {
	have, gone := e.fields[wanted], e.fields[obsolete]
	switch {
	case gone.key == nil:
		return f.set(e, wanted, value, insert)
	case have.key == nil:
		return f.rename(gone, wanted, value)
	case gone.key == e.node.Content[0]:
		// It stands beside the dash or brace: take the other one out instead.
		if err := f.remove(e, have); err != nil {
			return err
		}
		return f.rename(gone, wanted, value)
	default:
		if err := f.set(e, wanted, value, insert); err != nil {
			return err
		}
		return f.remove(e, gone)
	}
}

func (f *file) rename(old field, key, value string) error {
	if err := f.replace(old.key, key); err != nil {
		return err
	}
	return f.replace(old.value, value)
}

// replace puts value where the scalar n is, in the quotes that n has.
func (f *file) replace(n *yaml.Node, value string) error {
	start, end, err := f.span(n)
	if err != nil {
		return err
	}
	text := scalar(value)
	switch f.src[start] {
	case '"':
		text = `"` + value + `"`
	case '\'':
		text = `'` + value + `'`
	}
	f.splices = append(f.splices, splice{start, end, text})
	return nil
}

// remove takes a pair out that is not the first of its entry.
func (f *file) remove(e entry, gone field) error {
	start, _, err := f.span(gone.key)
	if err != nil {
		return err
	}
	_, end, err := f.span(gone.value)
	if err != nil {
		return err
	}
	if e.node.Style&yaml.FlowStyle != 0 {
		comma := bytes.LastIndexByte(f.src[:start], ',')
		if comma < 0 || strings.TrimSpace(string(f.src[comma+1:start])) != "" {
			return fault(gone.key, "%s cannot be removed from between the braces; write the entry over several lines", gone.key.Value)
		}
		f.splices = append(f.splices, splice{comma, end, ""})
		return nil
	}
	line := f.lines[gone.key.Line-1]
	behind := strings.TrimSpace(string(f.src[end:f.lineEnd(end)]))
	if strings.Trim(string(f.src[line:start]), " ") != "" || behind != "" && behind[0] != '#' || gone.value.Line != gone.key.Line {
		return fault(gone.key, "%s shares its line; write each key on its own", gone.key.Value)
	}
	f.splices = append(f.splices, splice{line, f.lineEnd(end), ""})
	return nil
}

// insertKeys adds pairs behind newName, or name where there is none.
func (f *file) insertKeys(e entry, pairs []string) error {
	if len(pairs) == 0 {
		return nil
	}
	after := e.fields["newName"]
	if after.key == nil {
		after = e.fields["name"]
	}
	_, end, err := f.span(after.value)
	if err != nil {
		return err
	}
	if e.node.Style&yaml.FlowStyle != 0 {
		f.splices = append(f.splices, splice{end, end, ", " + strings.Join(pairs, ", ")})
		return nil
	}
	indent := strings.Repeat(" ", e.node.Column-1)
	for i := range pairs {
		pairs[i] = indent + pairs[i]
	}
	f.insertLines(f.lineEnd(end), pairs)
	return nil
}

// scalar writes value plainly where every YAML reads that as a string, else in quotes.
// YAML 1.1, which kustomize reads, has more words and numbers than YAML 1.2.
func scalar(value string) string {
	first := value[0] | 0x20
	switch strings.ToLower(value) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return `"` + value + `"`
	}
	if first < 'a' || first > 'z' || strings.HasSuffix(value, ":") {
		return `"` + value + `"`
	}
	return value
}
