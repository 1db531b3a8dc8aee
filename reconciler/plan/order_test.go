package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/reconciler/plan"
)

// graph reads "a>b,c b>c".
func graph(text string) map[string][]string {
	edges := map[string][]string{}
	for _, node := range strings.Fields(text) {
		name, to, _ := strings.Cut(node, ">")
		edges[name] = strings.Split(to, ",")
	}
	return edges
}

func TestOrder(t *testing.T) {
	for _, c := range []struct{ edges, name, cycle, dependents string }{
		{"", "a", "", ""},
		{"a>a", "a", "a", "a"},
		{"a>b b>a", "a", "a b", "a b"},
		{"a>b b>a", "b", "b a", "a b"},
		{"a>b,c b>d c>d", "a", "", ""},
		{"a>b,c b>d c>d", "d", "", "a b c"},
		{"a>b b>c c>d d>b", "a", "", ""}, // a waits for a cycle and is none of it
		{"a>b b>c c>d d>b", "c", "c d b", "a b c d"},
		{"a>b,c b>c c>a", "a", "a c", "a b c"}, // the short way
	} {
		if got := strings.Join(plan.Cycle(c.name, graph(c.edges)), " "); got != c.cycle {
			t.Errorf("cycle of %s in %q: got %q, want %q", c.name, c.edges, got, c.cycle)
		}
		if got := strings.Join(plan.Dependents(c.name, graph(c.edges)), " "); got != c.dependents {
			t.Errorf("dependents of %s in %q: got %q, want %q", c.name, c.edges, got, c.dependents)
		}
	}
}

// FuzzCycle: a cycle leads along edges back to its beginning, and whoever is on it depends on itself.
func FuzzCycle(f *testing.F) {
	f.Add([]byte{0x01, 0x12, 0x20})
	f.Fuzz(func(t *testing.T, bytes []byte) {
		edges := map[string][]string{}
		for _, b := range bytes {
			from, to := fmt.Sprint(b>>4), fmt.Sprint(b&15)
			edges[from] = append(edges[from], to)
		}
		for i := range 16 {
			name := fmt.Sprint(i)
			way := plan.Cycle(name, edges)
			itself := false
			for _, d := range plan.Dependents(name, edges) {
				itself = itself || d == name
			}
			if (way != nil) != itself {
				t.Fatalf("%s: cycle %v, depends on itself: %t", name, way, itself)
			}
			for i, at := range way {
				next := way[(i+1)%len(way)]
				found := false
				for _, to := range edges[at] {
					found = found || to == next
				}
				if !found || way[0] != name {
					t.Fatalf("%s: %v does not follow the edges", name, way)
				}
			}
		}
	})
}
