package gogit_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

// at fetches a tag and returns where it is.
func at(t *testing.T, s *gogit.Store, tag string) gitsource.Revision {
	t.Helper()
	revision, err := s.Fetch(context.Background(), "refs/tags/"+tag)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func (h *host) tag(args ...string) {
	h.t.Helper()
	h.git(h.work, append([]string{"tag", "-f"}, args...)...)
	h.git(h.work, "push", "-q", "-f", "origin", "--tags")
}

func TestTags(t *testing.T) {
	h := newHost(t)
	h.git(h.dir, "config", "uploadpack.allowAnySHA1InWant", "false") // as most hosts do
	one := h.commit("one", map[string]string{"a": "1"})
	h.tag("light")
	h.tag("-a", "-m", "noted", "noted")
	two := h.commit("two", map[string]string{"a": "2"})
	s := h.store(t.TempDir())
	for range 2 {
		if got := at(t, s, "light"); got.ID != one || got.Tag != "" || got.Ref != "refs/tags/light" {
			t.Errorf("lightweight tag: %+v", got)
		}
		noted := gitsource.ObjectID(h.git(h.work, "rev-parse", "noted"))
		if got := at(t, s, "noted"); got.ID != one || got.Tag != noted || noted == one {
			t.Errorf("annotated tag: %+v, want commit %s by tag %s", got, one, noted)
		}
	}
	before := h.packs.Load()
	at(t, s, "noted")
	if got := h.packs.Load() - before; got != 0 {
		t.Errorf("unchanged tag: %d downloads", got)
	}
	if read(t, s, one, "a") != "1" {
		t.Error("wrong content")
	}
	h.tag("-a", "-m", "moved", "noted")
	if got := at(t, s, "noted"); got.ID != two || read(t, s, two, "a") != "2" {
		t.Errorf("moved tag: %+v", got)
	}
	h.tag("-a", "-m", "the same commit, another tag", "noted")
	noted := gitsource.ObjectID(h.git(h.work, "rev-parse", "noted"))
	if got := at(t, s, "noted"); got.ID != two || got.Tag != noted {
		t.Errorf("made again: %+v, want tag %s", got, noted)
	}
	h.tag("-a", "-m", "of a tag", "nested", "noted")
	if got := at(t, s, "nested"); got.ID != two {
		t.Errorf("nested tag: %+v", got)
	}
	h.tag("-a", "-m", "of a blob", "blob", "HEAD:a")
	h.tag("tree", "HEAD^{tree}")
	for _, name := range []string{"blob", "tree"} {
		if got, err := s.Fetch(context.Background(), "refs/tags/"+name); !errors.Is(err, gitsource.ErrNotFound) {
			t.Errorf("tag of a %s: %+v, %v", name, got, err)
		}
	}
	fetch(t, s) // they have broken nothing
}

func TestATagOutlivesTheStoreBeingMadeAnew(t *testing.T) {
	h := newHost(t)
	s := h.store(t.TempDir(), func(o *gogit.Options) { o.MaxPacks = 2 })
	for range 5 {
		id := h.commit("next", nil)
		h.tag("-a", "-m", "newest", "newest")
		if got := at(t, s, "newest"); got.ID != id || got.Tag == "" {
			t.Fatalf("got %+v, want commit %s", got, id)
		}
	}
}

func TestFetchChosen(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"a": "1"})
	h.tag("-a", "-m", "v1", "v1")
	h.tag("v2")
	s := h.store(t.TempDir())
	var seen []string
	got, err := s.FetchChosen(context.Background(), func(refs map[string]gitsource.ObjectID) (string, error) {
		seen = slices.Sorted(maps.Keys(refs))
		return "refs/tags/v2", nil
	})
	if err != nil || got.ID != id || got.Ref != "refs/tags/v2" {
		t.Errorf("got %+v, %v", got, err)
	}
	if want := []string{"refs/heads/main", "refs/tags/v1", "refs/tags/v2"}; !slices.Equal(slices.DeleteFunc(seen, func(s string) bool { return s == "HEAD" }), want) {
		t.Errorf("offered %v", seen)
	}
	none := errors.New("none will do")
	if _, err := s.FetchChosen(context.Background(), func(map[string]gitsource.ObjectID) (string, error) { return "", none }); !errors.Is(err, none) {
		t.Errorf("got %v", err)
	}
}
