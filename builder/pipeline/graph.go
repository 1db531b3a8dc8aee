package pipeline

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// graph checks the edges between stages; nodes are those of the stages in the file.
func (r *reader) graph(p Pipeline, nodes []*yaml.Node) {
	var names []string
	for _, s := range p.Stages {
		names = append(names, s.Name)
	}
	for at, s := range p.Stages {
		list := valueOf(nodes[at], "needs")
		seen := map[string]bool{}
		for i, need := range s.Needs {
			item := list.Content[i]
			switch {
			case need == "":
			case need == s.Name:
				r.fail(item, "stage %s needs itself (remove it)", s.Name)
			case seen[need]:
				r.fail(item, "stage %s needs %s twice (remove one)", s.Name, need)
			case !slices.Contains(names, need):
				others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == s.Name || n == "" })
				r.fail(item, "stage %s needs %q, which is none of the stages (%s)", s.Name, need, nearest(need, others))
			}
			seen[need] = true
		}
	}
	if len(r.faults) > 0 {
		return // what follows walks along the edges
	}
	for _, cycle := range cycles(p) {
		r.fail(nodes[slices.Index(names, cycle[0])], "stages need each other in a circle: %s (remove one of the needs)", strings.Join(cycle, " -> "))
	}
	if len(r.faults) > 0 {
		return
	}
	for at, s := range p.Stages {
		if s.Promotes() {
			r.source(p, s, nodes[at])
		}
	}
}

// source checks that it is clear which image a stage promotes.
func (r *reader) source(p Pipeline, s Stage, n *yaml.Node) {
	images := p.Images(s.Name)
	chosen := s.Steps[0].With["image"]
	switch {
	case len(images) == 0:
		r.fail(n, "stage %s promotes, and no stage that it needs builds an image (add needs, and a stage that uses go-image)", s.Name)
	case chosen == "" && len(images) > 1:
		r.fail(n, "stage %s promotes, and the stages %s all build images (say with.image: STAGE)", s.Name, strings.Join(images, ", "))
	case chosen != "" && !slices.Contains(images, chosen):
		r.fail(n, "stage %s promotes the image of %q, which is no stage that it needs and that builds one (%s)", s.Name, chosen, nearest(chosen, images))
	}
}

// cycles returns each circle of needs once, from the stage that comes first in the file, which is named again at the end.
func cycles(p Pipeline) [][]string {
	const (
		fresh = iota
		open
		done
	)
	state := map[string]int{}
	var path []string
	var found [][]string
	var walk func(name string)
	walk = func(name string) {
		state[name] = open
		path = append(path, name)
		s, _ := p.Stage(name)
		for _, need := range s.Needs {
			switch state[need] {
			case fresh:
				walk(need)
			case open:
				circle := slices.Clone(path[slices.Index(path, need):])
				found = append(found, append(circle, need))
			}
		}
		path = path[:len(path)-1]
		state[name] = done
	}
	for _, s := range p.Stages {
		if state[s.Name] == fresh {
			walk(s.Name)
		}
	}
	return found
}

// valueOf returns the value of a key of a mapping.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return &yaml.Node{}
}
