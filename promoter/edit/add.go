package edit

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// add appends entries to the list, which is made at the end of the file if there is none.
func (f *file) add(images []Image) error {
	switch {
	case f.list == nil:
		return f.addList(images)
	case f.list.Style&yaml.FlowStyle != 0:
		return f.addFlow(images)
	default:
		return f.addBlock(images)
	}
}

func pairs(i Image) []string {
	out := []string{"name: " + scalar(i.Name)}
	if i.NewName != "" {
		out = append(out, "newName: "+scalar(i.NewName))
	}
	if i.NewTag != "" {
		out = append(out, "newTag: "+scalar(i.NewTag))
	}
	if i.Digest != "" {
		out = append(out, "digest: "+scalar(i.Digest))
	}
	return out
}

// block writes an entry over lines: the dash at column indent, the keys gap further in.
func block(i Image, indent, gap int) []string {
	out := pairs(i)
	for k := range out {
		out[k] = strings.Repeat(" ", indent+gap) + out[k]
	}
	out[0] = strings.Repeat(" ", indent) + "-" + out[0][indent+1:]
	return out
}

func (f *file) addList(images []Image) error {
	if f.root.Style&yaml.FlowStyle != 0 {
		return fault(f.root, "the file is one flow mapping without images; add \"images: []\" to it")
	}
	indent := f.root.Column - 1
	lines := []string{strings.Repeat(" ", indent) + "images:"}
	for _, i := range images {
		lines = append(lines, block(i, indent+2, 2)...)
	}
	f.insertLines(len(f.src), lines)
	return nil
}

func (f *file) addFlow(images []Image) error {
	at, err := f.offset(f.list)
	if err != nil {
		return err
	}
	if at >= len(f.src) || f.src[at] != '[' {
		return fault(f.list, "images has a tag or does not begin with [; write it plainly")
	}
	var texts []string
	for _, i := range images {
		texts = append(texts, "{"+strings.Join(pairs(i), ", ")+"}")
	}
	text := strings.Join(texts, ", ")
	if len(f.list.Content) > 0 {
		text += ", "
	}
	f.splices = append(f.splices, splice{at + 1, at + 1, text})
	return nil
}

func (f *file) addBlock(images []Image) error {
	last := f.list.Content[len(f.list.Content)-1]
	end, err := f.end(last)
	if err != nil {
		return err
	}
	indent := f.list.Column - 1
	gap := 2
	if first := f.list.Content[0]; first.Line == f.list.Line && first.Column > f.list.Column {
		gap = first.Column - f.list.Column
	}
	var lines []string
	for _, i := range images {
		lines = append(lines, block(i, indent, gap)...)
	}
	f.insertLines(f.lineEnd(end), lines)
	return nil
}

// end returns the offset behind n.
func (f *file) end(n *yaml.Node) (int, error) {
	if n.Kind == yaml.ScalarNode {
		_, end, err := f.span(n)
		return end, err
	}
	if len(n.Content) == 0 {
		return 0, fault(n, "an empty collection; remove it")
	}
	end, err := f.end(n.Content[len(n.Content)-1])
	if err != nil || n.Style&yaml.FlowStyle == 0 {
		return end, err
	}
	rest := string(f.src[end:])
	trimmed := strings.TrimLeft(rest, " \t\r\n,")
	if trimmed == "" || trimmed[0] != '}' && trimmed[0] != ']' {
		return 0, fault(n, "a comment inside braces; write the entry over several lines")
	}
	return end + len(rest) - len(trimmed) + 1, nil
}
