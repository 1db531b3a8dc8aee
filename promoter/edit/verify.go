package edit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// verify parses out and compares it with before: the changed entries say what
// they should, and everything else says what it said. It shares no code with the
// splicing, so that a mistake there cannot hide.
func verify(before *file, out []byte, changed []ImageChange) error {
	after, err := parse(out)
	if err != nil {
		return fmt.Errorf("the edited file would not parse, so nothing was changed: %w (write the images list plainly)", err)
	}
	want, got := before.meaning(), after.meaning()
	for _, c := range changed {
		entry := want.entries[c.After.Name]
		if entry == nil {
			entry = map[string]string{"name": c.After.Name}
			want.entries[c.After.Name] = entry
			want.names = append(want.names, c.After.Name)
		}
		for key, value := range map[string]string{"newName": c.After.NewName, "newTag": c.After.NewTag, "digest": c.After.Digest} {
			if value != "" {
				entry[key] = value
			} else if key != "newName" {
				delete(entry, key)
			}
		}
	}
	slices.Sort(want.names)
	slices.Sort(got.names)
	if want.rest != got.rest || !slices.Equal(want.names, got.names) || !maps.EqualFunc(want.entries, got.entries, maps.Equal) {
		return errors.New("the edit would change more than the images asked for, so nothing was changed (write the images list plainly)")
	}
	return nil
}

// meaning is what a kustomization says, apart from how it is written.
type meaning struct {
	rest    string // everything but images
	names   []string
	entries map[string]map[string]string
}

func (f *file) meaning() meaning {
	m := meaning{entries: map[string]map[string]string{}}
	var b strings.Builder
	for i := 0; i+1 < len(f.root.Content); i += 2 {
		if f.root.Content[i+1] == f.list {
			continue
		}
		dump(&b, f.root.Content[i])
		dump(&b, f.root.Content[i+1])
	}
	m.rest = b.String()
	for _, e := range f.entries {
		fields := map[string]string{}
		for key, field := range e.fields {
			fields[key] = value(field.value)
		}
		m.names = append(m.names, fields["name"])
		m.entries[fields["name"]] = fields
	}
	return m
}

// value is a string for itself and anything else as it would be dumped.
func value(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		return n.Value
	}
	var b strings.Builder
	dump(&b, n)
	return b.String()
}

// dump writes the structure below n without following aliases: their names say enough.
func dump(b *strings.Builder, n *yaml.Node) {
	fmt.Fprintf(b, "(%d %q %q %q", n.Kind, n.Tag, n.Anchor, n.Value)
	for _, c := range n.Content {
		dump(b, c)
	}
	b.WriteByte(')')
}
