package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/slipway-cd/slipway/cmd/internal/owned"
	"github.com/slipway-cd/slipway/gitsource"
)

func treeCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "tree [APPLICATION...]",
		Short: "Show what Applications own, and how it fares",
		Long: `Show what Applications own: the objects of their Inventories, and the ReplicaSets, Jobs and
Pods that were made of those, each with its health and age. What is not healthy says why.
ReplicaSets of earlier versions are left out.`,
		Example: `  slipway tree
  slipway tree shop-production
  slipway tree shop-production -o json`,
		RunE: func(cmd *cobra.Command, names []string) error {
			kube, _, err := g.kube()
			if err != nil {
				return err
			}
			roots, err := owned.Reader{Kube: kube, Namespace: g.namespace}.Trees(cmd.Context(), names...)
			if err != nil {
				return err
			}
			return g.print(roots, func(w io.Writer) { printTrees(w, g.terminal, roots, time.Now()) })
		},
	}
}

// branch is one line of a tree, with what is drawn before it and before the lines that explain it.
type branch struct {
	lead, below string
	node        *owned.Node
	name        string
}

// printTrees draws trees. The names take what health and age leave of the width.
func printTrees(w io.Writer, t terminal, roots []*owned.Node, now time.Time) {
	var all []branch
	for _, root := range roots {
		all = append(all, branches(root, "", "", "")...)
	}
	const rest = len("  progressing  365d")
	width := 0
	for i := range all {
		if t.width > 0 {
			all[i].name = shorten(all[i].name, max(20, t.width-rest-utf8.RuneCountInString(all[i].lead)))
		}
		width = max(width, utf8.RuneCountInString(all[i].lead+all[i].name))
	}
	for _, b := range all {
		fill := strings.Repeat(" ", width-utf8.RuneCountInString(b.lead+b.name))
		age := "-"
		if b.node.Created != nil {
			age = duration.ShortHumanDuration(now.Sub(*b.node.Created))
		}
		health := fmt.Sprintf("%-11s", b.node.Health)
		fmt.Fprintf(w, "%s%s%s  %s  %s\n", t.paint(faint, b.lead), b.name, fill, t.paint(tintOf(b.node.Health), health), age)
		if b.node.Health == owned.Healthy || b.node.Message == "" {
			continue
		}
		room := 0
		if t.width > 0 {
			room = max(20, t.width-utf8.RuneCountInString(b.below)-2)
		}
		for _, line := range wrap(printable(b.node.Message), room) {
			fmt.Fprintf(w, "%s  %s\n", t.paint(faint, b.below), t.paint(tintOf(b.node.Health), line))
		}
	}
}

// branches lists a node and what is below it. Namespaces are named where they begin.
func branches(node *owned.Node, lead, below, namespace string) []branch {
	name := node.Kind + " "
	if node.Namespace != "" && node.Namespace != namespace && node.Kind != "Application" {
		name += node.Namespace + "/"
	}
	name += node.Name
	if revision, err := gitsource.ParseRevision(node.Revision); err == nil {
		name += " @ " + revision.ID.Short()
	}
	line := branch{lead: lead, below: below, node: node, name: name}
	all := []branch{line}
	for i, child := range node.Children {
		next, further := "├─ ", "│  "
		if i == len(node.Children)-1 {
			next, further = "└─ ", "   "
		}
		inside := node.Namespace
		if node.Kind == "Application" {
			inside = ""
		}
		all = append(all, branches(child, below+next, below+further, inside)...)
	}
	if len(node.Children) > 0 {
		all[0].below += "│"
	}
	return all
}

func tintOf(health string) tint {
	switch health {
	case owned.Healthy:
		return good
	case owned.Failed, owned.Missing:
		return bad
	}
	return doubt
}
