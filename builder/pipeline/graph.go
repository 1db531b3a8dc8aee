package pipeline

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/slipway-cd/slipway/manifests/typo"
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
			if len(r.faults) == maxHeld {
				return // looking for the nearest name costs more than the answer is worth by now
			}
			item := list.Content[i]
			switch {
			case blank(item):
				r.fail(item, "needs holds an empty name (remove it, or name a stage)")
			case need == "": // is no string, which was said
			case need == s.Name:
				r.fail(item, "stage %s needs itself (remove it)", s.Name)
			case seen[need]:
				r.fail(item, "stage %s needs %s twice (remove one)", s.Name, need)
			case !slices.Contains(names, need):
				others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == s.Name || n == "" })
				r.fail(item, "stage %s needs %q, which is none of the stages (%s)", s.Name, need, typo.WayOut(need, others))
			}
			seen[need] = true
		}
	}
	for _, cycle := range cycles(p) {
		r.fail(nodes[slices.Index(names, cycle[0])], "stages need each other in a circle: %s (remove one of the needs)", strings.Join(cycle, " -> "))
	}
	if len(r.faults) > 0 {
		return // which images a stage may promote is only clear where all else is
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
	case chosen == "" && p.count(images[0]) > 1 || slices.Contains(images, chosen) && p.count(chosen) > 1:
		r.fail(n, "stage %s promotes one image, and the stage before builds several (build each in a stage of its own)", s.Name)
	case chosen != "" && !slices.Contains(images, chosen):
		r.fail(n, "stage %s promotes the image of %q, which is no stage that it needs and that builds one (%s)", s.Name, chosen, typo.WayOut(chosen, images))
	}
}

// count says how many images a stage builds.
func (p Pipeline) count(stage string) (images int) {
	s, _ := p.Stage(stage)
	for _, step := range s.Steps {
		if step.Uses == GoImage {
			images++
		}
	}
	return images
}

// cycles returns circles of needs, at least one of each group of stages that hang in one. Each begins with its stage that
// comes first in the file, which is named again at the end. A stage that needs itself is no circle here.
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
			switch {
			case need == "" || need == name: // has a fault of its own
			case state[need] == fresh:
				walk(need)
			case state[need] == open:
				found = append(found, p.fromFirst(path[slices.Index(path, need):]))
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

// fromFirst returns a circle from its stage that comes first in the file, and back to it.
func (p Pipeline) fromFirst(circle []string) []string {
	for _, s := range p.Stages {
		if at := slices.Index(circle, s.Name); at >= 0 {
			return slices.Concat(circle[at:], circle[:at+1])
		}
	}
	return circle
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
