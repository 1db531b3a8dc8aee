package render

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"text/template/parse"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
)

// unstableMark starts the message of a template that reaches an unstable function.
const unstableMark = "slipway-unstable"

// isUnstable reports whether a template function gives another answer each time.
// Of the deterministic ones derivePassword is here too: what it returns is a
// secret that should not depend on a chart.
func isUnstable(function string) bool {
	return slices.Contains([]string{
		"now", "ago", "randAlpha", "randAlphaNum", "randAscii", "randNumeric", "randBytes", "randInt", "shuffle", "uuidv4",
		"genPrivateKey", "genCA", "genCAWithKey", "genSelfSignedCert", "genSelfSignedCertWithKey", "genSignedCert",
		"genSignedCertWithKey", "htpasswd", "bcrypt", "derivePassword", "encryptAES",
	}, function)
}

func unstableError(function string) error {
	return fmt.Errorf("template function %s gives another answer each time (set the value it makes, or permit it with spec.helm.allowUnstable)", function)
}

// refuseUnstable makes each call of an unstable function in the chart's
// templates fail when it is reached: charts keep such calls in branches that a
// given value avoids. Values that are templates themselves are refused outright.
func refuseUnstable(loaded *chart.Chart, values chartutil.Values, dir string) error {
	usesTpl, err := guardChart(loaded, "", dir)
	if err != nil || !usesTpl {
		return err
	}
	if function := unstableIn(values["Values"]); function != "" {
		return &Error{Path: dir, Cause: fmt.Errorf("a value is a template: %w", unstableError(function))}
	}
	return nil
}

func guardChart(one *chart.Chart, prefix, dir string) (usesTpl bool, err error) {
	for _, template := range one.Templates {
		name := path.Join(prefix, template.Name)
		guarded, tpl, function := guardTemplate(name, template.Data)
		if function != "" {
			return false, &Error{Path: path.Join(dir, name), Cause: unstableError(function)}
		}
		template.Data, usesTpl = guarded, usesTpl || tpl
	}
	for _, sub := range one.Dependencies() {
		tpl, err := guardChart(sub, path.Join(prefix, "charts", sub.Name()), dir)
		if err != nil {
			return false, err
		}
		usesTpl = usesTpl || tpl
	}
	return usesTpl, nil
}

// guardTemplate replaces the name of each unstable function by a call of fail
// on the same line. It returns the name of one that it could not replace.
func guardTemplate(name string, content []byte) (guarded []byte, usesTpl bool, stuck string) {
	calls := identifiers(string(content))
	slices.SortFunc(calls, func(a, b *parse.IdentifierNode) int { return int(b.Pos - a.Pos) })
	guarded = content
	for _, call := range calls {
		usesTpl = usesTpl || call.Ident == "tpl"
		if !isUnstable(call.Ident) {
			continue
		}
		at := int(call.Pos)
		if at > len(guarded) || !bytes.HasPrefix(guarded[at:], []byte(call.Ident)) {
			return content, usesTpl, call.Ident
		}
		line := 1 + bytes.Count(content[:at], []byte("\n"))
		failing := fmt.Sprintf("(fail %q)", fmt.Sprintf("%s:%s:%s:%d", unstableMark, call.Ident, name, line))
		guarded = slices.Concat(guarded[:at], []byte(failing), guarded[at+len(call.Ident):])
	}
	return guarded, usesTpl, ""
}

// identifiers returns the functions that a template calls; none if it does not parse, which Helm reports.
func identifiers(content string) []*parse.IdentifierNode {
	tree := parse.New("template")
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(content, "", "", trees); err != nil {
		return nil
	}
	var found []*parse.IdentifierNode
	for _, one := range trees {
		if one.Root != nil {
			collect(one.Root, &found)
		}
	}
	return found
}

func collect(node parse.Node, found *[]*parse.IdentifierNode) {
	switch node := node.(type) {
	case *parse.ListNode:
		if node != nil {
			for _, child := range node.Nodes {
				collect(child, found)
			}
		}
	case *parse.ActionNode:
		collect(node.Pipe, found)
	case *parse.PipeNode:
		if node != nil {
			for _, command := range node.Cmds {
				collect(command, found)
			}
		}
	case *parse.CommandNode:
		for _, argument := range node.Args {
			collect(argument, found)
		}
	case *parse.ChainNode:
		collect(node.Node, found)
	case *parse.IfNode:
		collectBranch(&node.BranchNode, found)
	case *parse.RangeNode:
		collectBranch(&node.BranchNode, found)
	case *parse.WithNode:
		collectBranch(&node.BranchNode, found)
	case *parse.TemplateNode:
		collect(node.Pipe, found)
	case *parse.IdentifierNode:
		*found = append(*found, node)
	}
}

func collectBranch(node *parse.BranchNode, found *[]*parse.IdentifierNode) {
	collect(node.Pipe, found)
	collect(node.List, found)
	collect(node.ElseList, found)
}

// unstableIn returns an unstable function that a string below value calls as a template.
func unstableIn(value any) string {
	switch value := value.(type) {
	case string:
		if !strings.Contains(value, "{{") {
			return ""
		}
		for _, call := range identifiers(value) {
			if isUnstable(call.Ident) {
				return call.Ident
			}
		}
	case chartutil.Values:
		return unstableIn(map[string]any(value))
	case map[string]any:
		for _, child := range value {
			if function := unstableIn(child); function != "" {
				return function
			}
		}
	case []any:
		for _, child := range value {
			if function := unstableIn(child); function != "" {
				return function
			}
		}
	}
	return ""
}
