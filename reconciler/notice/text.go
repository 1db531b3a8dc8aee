package notice

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"
)

// Message is what changed. None of it comes from a Secret: conditions carry no values of those.
type Message struct {
	Cluster     string `json:"cluster"`
	Kind        string `json:"kind"` // Application or Rollout
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	Application string `json:"application"`
	Environment string `json:"environment,omitempty"`
	Ready       string `json:"ready"` // True, False or Unknown
	Reason      string `json:"reason"`
	Message     string `json:"message"`
	Revision    string `json:"revision,omitempty"`
}

// Bounds of a text, in bytes.
const (
	MaxTemplate = 4096
	MaxText     = 8192
)

// DefaultTemplate is that of a Notification without one.
const DefaultTemplate = `{{.Cluster}}: {{.Kind}} {{.Name}}{{with .Environment}} ({{.}}){{end}}: {{.Reason}}: {{.Message}}{{with .Revision}} [{{short .}}]{{end}}`

// Text is a template that was checked.
type Text struct{ parsed *template.Template }

// errLong ends a template whose text becomes too long.
var errLong = fmt.Errorf("the text has more than %d bytes", MaxText)

// ParseText checks a template; an empty one stands for DefaultTemplate. It refuses what could take more time or room than the
// template is long: loops, templates that call each other, functions that build text.
func ParseText(text string) (*Text, error) {
	if len(text) > MaxTemplate {
		return nil, fmt.Errorf("template: has more than %d bytes", MaxTemplate)
	}
	if text == "" {
		text = DefaultTemplate
	}
	parsed, err := template.New("template").Option("missingkey=error").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	if len(parsed.Templates()) > 1 || parsed.Tree == nil {
		return nil, errors.New("template: define and block are not taken")
	}
	if err := plain(parsed.Root); err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	t := &Text{parsed}
	if _, err := t.Of(Message{Kind: "Application", Name: "any", Application: "any", Ready: "True", Reason: "Any", Message: "any", Revision: "main@any"}); err != nil {
		return nil, err // a field that does not exist shows only now
	}
	return t, nil
}

// allowed are the functions that return no more text than they get.
var allowed = map[string]bool{"and": true, "or": true, "not": true, "eq": true, "ne": true, "short": true}

func functions() template.FuncMap { return template.FuncMap{"short": short} }

// short makes "main@0123456789ab" of "refs/heads/main@sha1:ID".
func short(revision string) string {
	ref, commit, found := strings.Cut(revision, "@")
	if !found {
		return revision
	}
	if _, id, named := strings.Cut(commit, ":"); named {
		commit = id
	}
	if len(commit) > 12 {
		commit = commit[:12]
	}
	return strings.TrimPrefix(ref, "refs/heads/") + "@" + commit
}

// plain walks a template and refuses what is not in the small language.
func plain(node parse.Node) error {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		for _, child := range n.Nodes {
			if err := plain(child); err != nil {
				return err
			}
		}
	case *parse.ActionNode:
		return plainPipe(n.Pipe)
	case *parse.IfNode:
		return errors.Join(plainPipe(n.Pipe), plain(n.List), plain(n.ElseList))
	case *parse.WithNode:
		return errors.Join(plainPipe(n.Pipe), plain(n.List), plain(n.ElseList))
	case *parse.TextNode, *parse.CommentNode:
	default:
		return fmt.Errorf("%s is not taken (what there is: if, with and fields)", node)
	}
	return nil
}

func plainPipe(pipe *parse.PipeNode) error {
	for _, command := range pipe.Cmds {
		for _, argument := range command.Args {
			switch a := argument.(type) {
			case *parse.IdentifierNode:
				if !allowed[a.Ident] {
					return fmt.Errorf("the function %s is not taken", a.Ident)
				}
			case *parse.PipeNode:
				if err := plainPipe(a); err != nil {
					return err
				}
			case *parse.FieldNode, *parse.VariableNode, *parse.DotNode, *parse.StringNode, *parse.NumberNode, *parse.BoolNode:
			default: // a field of what a function returns, say
				return fmt.Errorf("%s is not taken", a)
			}
		}
	}
	return nil
}

// Of is the text for a message.
func (t *Text) Of(m Message) (string, error) {
	m.Message = cut(m.Message, MaxText/2)
	out := &bounded{}
	if err := t.parsed.Execute(out, m); err != nil {
		if errors.Is(err, errLong) {
			return "", fmt.Errorf("template: %w", errLong)
		}
		return "", fmt.Errorf("template: %w", err)
	}
	return out.String(), nil
}

// cut shortens text to at most n bytes, at the end of a rune.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "..."
}

type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > MaxText {
		return 0, errLong
	}
	return b.Builder.Write(p)
}
