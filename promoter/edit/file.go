package edit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const byteOrderMark = "\uFEFF"

// file is a parsed kustomization with the splices that an edit collects.
type file struct {
	src     []byte
	lines   []int // offset of each line's first byte
	root    *yaml.Node
	list    *yaml.Node // value of images; nil if there is none
	entries []entry
	splices []splice
}

// splice replaces src[start:end].
type splice struct {
	start, end int
	text       string
}

// entry is one mapping of the list.
type entry struct {
	node   *yaml.Node
	fields map[string]field
}

type field struct{ key, value *yaml.Node }

func fault(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...))
}

func parse(src []byte) (*file, error) {
	if len(src) > maxBytes {
		return nil, fmt.Errorf("%d bytes; at most %d are edited", len(src), maxBytes)
	}
	f := &file{src: src}
	if err := f.splitLines(); err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(src))
	var doc, more yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; a kustomization is a mapping")
	} else if err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document; a kustomization is one")
	}
	f.root = doc.Content[0]
	if f.root.Kind != yaml.MappingNode {
		return nil, fault(f.root, "not a mapping; a kustomization is one")
	}
	for i := 0; i+1 < len(f.root.Content); i += 2 {
		if f.root.Content[i].Value != "images" {
			continue
		}
		if f.list != nil {
			return nil, fault(f.root.Content[i], "images is there twice; join the lists")
		}
		f.list = f.root.Content[i+1]
	}
	return f, f.readEntries()
}

// splitLines records where lines begin. YAML has more line ends than LF and
// CRLF; a file with one of those would be counted differently here and there.
func (f *file) splitLines() error {
	if !utf8.Valid(f.src) {
		return errors.New("not UTF-8")
	}
	rest := strings.ReplaceAll(string(f.src), "\r\n", "\n")
	if strings.ContainsAny(rest, "\r\u0085\u2028\u2029") || strings.LastIndex(rest, byteOrderMark) > 0 {
		return errors.New("has a line end that is neither LF nor CRLF, or a byte order mark inside; remove it")
	}
	f.lines = []int{len(f.src) - len(bytes.TrimPrefix(f.src, []byte(byteOrderMark)))}
	for i, b := range f.src {
		if b == '\n' {
			f.lines = append(f.lines, i+1)
		}
	}
	return nil
}

func (f *file) readEntries() error {
	if f.list == nil {
		return nil
	}
	if f.list.Kind == yaml.AliasNode || f.list.Anchor != "" {
		return fault(f.list, "images is shared by an anchor or alias; write the list out")
	}
	if f.list.Kind != yaml.SequenceNode {
		return fault(f.list, "images is not a list; write one or remove the key")
	}
	names := map[string]bool{}
	for _, n := range f.list.Content {
		if n.Kind != yaml.MappingNode || n.Anchor != "" {
			return fault(n, "an entry of images is an alias, has an anchor or is no mapping; write it out")
		}
		e := entry{node: n, fields: map[string]field{}}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || e.fields[key.Value].key != nil {
				return fault(key, "key %q in an entry of images is a merge, an alias or there twice; write the entry out", key.Value)
			}
			e.fields[key.Value] = field{key, n.Content[i+1]}
		}
		name := e.fields["name"].value
		if name == nil || name.Kind != yaml.ScalarNode {
			return fault(n, "an entry of images has no name")
		}
		if names[name.Value] {
			return fault(n, "image %q has two entries; join them", name.Value)
		}
		names[name.Value] = true
		f.entries = append(f.entries, e)
	}
	return nil
}

func (f *file) entry(name string) (entry, bool) {
	for _, e := range f.entries {
		if e.fields["name"].value.Value == name {
			return e, true
		}
	}
	return entry{}, false
}

// image reads the entry.
func (e entry) image() (Image, error) {
	var i Image
	for key, to := range map[string]*string{"name": &i.Name, "newName": &i.NewName, "newTag": &i.NewTag, "digest": &i.Digest} {
		v := e.fields[key].value
		if v == nil {
			continue
		}
		if v.Kind != yaml.ScalarNode {
			return Image{}, fault(v, "%s is an alias or no scalar; write the value out", key)
		}
		if v.Tag != "!!null" {
			*to = v.Value
		}
	}
	return i, nil
}

// offset returns where n begins. The parser counts lines from 1 and columns in characters from 1.
func (f *file) offset(n *yaml.Node) (int, error) {
	if n.Line < 1 || n.Line > len(f.lines) {
		return 0, fault(n, "position unknown")
	}
	at := f.lines[n.Line-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(f.src[at:])
		at += size
	}
	if at > len(f.src) {
		return 0, fault(n, "position unknown")
	}
	return at, nil
}

// span returns the bytes of a scalar that stands on one line.
func (f *file) span(n *yaml.Node) (start, end int, err error) {
	if n.Kind != yaml.ScalarNode || n.Anchor != "" || n.Style&(yaml.TaggedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return 0, 0, fault(n, "%q has an anchor, alias or tag, or goes over several lines; write it plainly", n.Value)
	}
	start, err = f.offset(n)
	if err != nil {
		return 0, 0, err
	}
	line := f.src[start:f.lineEnd(start)]
	length := -1
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		length = quotedLength(line, '"')
	case n.Style&yaml.SingleQuotedStyle != 0:
		length = quotedLength(line, '\'')
	case n.Value != "" && bytes.HasPrefix(line, []byte(n.Value)):
		length = len(n.Value)
	}
	if length < 0 {
		return 0, 0, fault(n, "%q is empty or goes over several lines; write it on one", n.Value)
	}
	return start, start + length, nil
}

// quotedLength returns the length of the quoted scalar that line begins with, or -1.
func quotedLength(line []byte, quote byte) int {
	for i := 1; i < len(line); i++ {
		switch {
		case quote == '"' && line[i] == '\\':
			i++
		case quote == '\'' && line[i] == quote && i+1 < len(line) && line[i+1] == quote:
			i++
		case line[i] == quote:
			return i + 1
		}
	}
	return -1
}

// lineEnd returns the offset behind the line that at is in, its line end included.
func (f *file) lineEnd(at int) int {
	if i := bytes.IndexByte(f.src[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(f.src)
}

// newline returns the line end that the file uses.
func (f *file) newline() string {
	if i := bytes.IndexByte(f.src, '\n'); i > 0 && f.src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// insertLines puts whole lines at offset at, which begins a line or ends the file.
func (f *file) insertLines(at int, lines []string) {
	nl := f.newline()
	text := strings.Join(lines, nl)
	if at == len(f.src) && at > 0 && f.src[at-1] != '\n' {
		text = nl + text
	} else {
		text += nl
	}
	f.splices = append(f.splices, splice{at, at, text})
}

// spliced applies the splices. At the same place insertions come first, in the order in which they were made.
func (f *file) spliced() ([]byte, error) {
	slices.SortStableFunc(f.splices, func(a, b splice) int { return cmp.Or(a.start-b.start, a.end-b.end) })
	var out []byte
	at := 0
	for _, s := range f.splices {
		if s.start < at {
			return nil, errors.New("two changes overlap, so nothing was changed (write the images list plainly)")
		}
		out = append(out, f.src[at:s.start]...)
		out = append(out, s.text...)
		at = s.end
	}
	return append(out, f.src[at:]...), nil
}
