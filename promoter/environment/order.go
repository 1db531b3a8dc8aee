package environment

import (
	"strings"

	"github.com/slipway-cd/slipway/manifests/typo"
)

// checkOrder refuses unknown names in after, and cycles, naming the way round.
func (r *reader) checkOrder(d Delivery, lines map[string]int) {
	after := map[string][]string{}
	for _, e := range d.Environments {
		for _, a := range e.After {
			if _, known := lines[a]; !known {
				r.fail(lines[e.Name], "environment %q comes after %q, which is not listed; %s", e.Name, a, typo.WayOut(a, names(d)))
				continue
			}
			after[e.Name] = append(after[e.Name], a)
		}
	}
	done := map[string]bool{}
	for _, e := range d.Environments {
		if way := cycle(e.Name, after, done, nil); way != nil {
			r.fail(lines[e.Name], "environments come after each other in a circle: %s", strings.Join(way, " after "))
			return
		}
	}
}

// cycle walks depth first and returns the circle that it runs into, its first name repeated at the end.
func cycle(name string, after map[string][]string, done map[string]bool, way []string) []string {
	for i, w := range way {
		if w == name {
			return append(append([]string{}, way[i:]...), name)
		}
	}
	if done[name] {
		return nil
	}
	for _, a := range after[name] {
		if found := cycle(a, after, done, append(way, name)); found != nil {
			return found
		}
	}
	done[name] = true
	return nil
}

func names(d Delivery) []string {
	var out []string
	for _, e := range d.Environments {
		out = append(out, e.Name)
	}
	return out
}
