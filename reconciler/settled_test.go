package reconciler

import (
	"errors"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

type entries = map[string]gitsource.Entry

// tree is one of which nothing but entries is asked for; without any it cannot be read.
type tree struct {
	gitsource.Tree
	entries entries
}

func (t tree) Entry(path string) (gitsource.Entry, error) {
	if t.entries == nil {
		return gitsource.Entry{}, errors.New("cannot be read")
	}
	return t.entries[path], nil
}

func TestPassBy(t *testing.T) {
	source := &v1alpha1.GitSource{}
	source.UID, source.Generation = "fleet", 3
	reads := gitsource.Reads{{Path: ".", Kind: gitsource.Directory}, {Path: "apps/shop", Kind: gitsource.Directory, ID: "aa"}, {Path: "apps/extra"}}
	same := entries{".": {Kind: gitsource.Directory, ID: "22"}, "apps/shop": {Kind: gitsource.Directory, ID: "aa"}}
	for name, c := range map[string]struct {
		at   func(*settled)
		tree entries
		want bool
	}{
		"nothing that was read is different":      {tree: same, want: true},
		"a file of it is":                         {tree: entries{".": {Kind: gitsource.Directory}, "apps/shop": {Kind: gitsource.Directory, ID: "bb"}}},
		"a file is there that was looked for":     {tree: entries{".": same["."], "apps/shop": same["apps/shop"], "apps/extra": {Kind: gitsource.File, ID: "cc"}}},
		"it is gone":                              {tree: entries{".": same["."]}},
		"nobody knows":                            {tree: nil},
		"the source means another repository now": {tree: same, at: func(s *settled) { s.generation = 2 }},
		"it is of another source":                 {tree: same, at: func(s *settled) { s.source = "other" }},
	} {
		t.Run(name, func(t *testing.T) {
			at := settled{source: "fleet", generation: 3, reads: reads}
			if c.at != nil {
				c.at(&at)
			}
			r := &ApplicationReconciler{settled: map[string]settled{"shop": at}, seen: map[string]gitsource.Revision{}, relations: newRelations()}
			waiting := &v1alpha1.Application{}
			waiting.Name, waiting.Spec.DependsOn = "web", []v1alpha1.Dependency{{Name: "shop"}}
			r.relations.note(waiting)
			tip := gitsource.Snapshot{Revision: gitsource.Revision{ID: "new"}, Tree: tree{entries: c.tree}}
			names, passed := r.passBy("shop", source, tip)
			if passed != c.want {
				t.Fatalf("passed by: got %v, want %v", passed, c.want)
			}
			if known := r.seenBy("shop").ID == "new"; known != c.want {
				t.Errorf("it is on record that it is at the new tip: got %v, want %v", known, c.want)
			}
			if c.want != (len(names) == 1 && names[0] == "web") {
				t.Errorf("who waited for it: got %v", names)
			}
			if _, passed := r.passBy("other", source, tip); passed {
				t.Error("an Application that is worked on is passed by")
			}
		})
	}
}
