package gogit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

// orphan replaces the branch by another history.
func (h *host) orphan(content string) gitsource.ObjectID {
	h.t.Helper()
	h.git(h.work, "checkout", "-q", "--orphan", "fresh")
	h.git(h.work, "branch", "-D", "main")
	h.git(h.work, "branch", "-m", "main")
	return h.commit("another history", map[string]string{"a": content})
}

func TestSnapshotOutlivesAForcedUpdate(t *testing.T) {
	h := newHost(t)
	id := h.commit("one", map[string]string{"a": "1", "d/b": "2"})
	s := h.store(t.TempDir())
	fetch(t, s)
	snapshot, err := s.SnapshotOf(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	h.orphan("other")
	fetch(t, s)
	if got, err := snapshot.Tree.ReadFile("d/b"); err != nil || string(got) != "2" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPinsSurviveAHostThatForgets(t *testing.T) {
	h := newHost(t)
	healthy := h.commit("healthy", map[string]string{"a": "good", "d/b": "2"})
	dir := t.TempDir()
	s := h.store(dir)
	fetch(t, s)
	if err := s.Pin("shop", healthy); err != nil {
		t.Fatal(err)
	}
	fresh := h.orphan("other")
	h.git(h.dir, "reflog", "expire", "--expire=now", "--all")
	h.git(h.dir, "gc", "-q", "--prune=now")
	if got := fetch(t, s); got.ID != fresh {
		t.Fatal(got)
	}
	for range 2 {
		if read(t, s, healthy, "d/b") != "2" {
			t.Error("wrong content")
		}
		s = h.store(dir)
	}
}

func TestAnUnfinishedRemakeIsForgotten(t *testing.T) {
	h := newHost(t)
	healthy := h.commit("healthy", map[string]string{"a": "good"})
	dir := t.TempDir()
	s := h.store(dir)
	fetch(t, s)
	if err := s.Pin("shop", healthy); err != nil {
		t.Fatal(err)
	}
	h.server.Close() // from here on nothing can be fetched
	for _, name := range []string{"2.new", "7.new"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "objects"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, h.store(dir), healthy, "a"); got != "good" {
		t.Errorf("got %q", got)
	}
}

func TestManyPinsDoNotMakeTheStoreAnewAgainAndAgain(t *testing.T) {
	h := newHost(t)
	s := h.store(t.TempDir(), func(o *gogit.Options) { o.MaxPacks = 3 })
	for i := range 6 {
		id := h.commit("next", map[string]string{"a": fmt.Sprint(i)})
		fetch(t, s)
		if err := s.Pin(fmt.Sprint("app", i), id); err != nil {
			t.Fatal(err)
		}
	}
	fetch(t, s)
	before := h.packs.Load()
	for range 3 {
		fetch(t, s)
	}
	if got := h.packs.Load() - before; got != 0 {
		t.Errorf("unchanged ref: %d downloads", got)
	}
}

func TestBranchesThatTakeTurnsWithDirectories(t *testing.T) {
	h := newHost(t)
	h.commit("one", map[string]string{"a": "1"})
	s := h.store(t.TempDir())
	for _, name := range []string{"promote", "promote/production", "promote"} {
		h.git(h.work, "push", "-q", "origin", "HEAD:refs/heads/"+name)
		if _, err := s.Fetch(context.Background(), "refs/heads/"+name); err != nil {
			t.Fatal(err)
		}
		h.git(h.work, "push", "-q", "origin", ":refs/heads/"+name)
	}
}

func TestWaitingForAFetchEndsWithTheContext(t *testing.T) {
	h := newHost(t)
	h.commit("one", map[string]string{"a": "1"})
	s := h.store(t.TempDir())
	h.hang.Store(true)
	slow, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Fetch(slow, mainRef)
		ended <- err
	}()
	<-h.hanging
	quick, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Fetch(quick, mainRef); !errors.Is(err, gitsource.ErrUnreachable) || time.Since(start) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	stop()
	if err := <-ended; !errors.Is(err, gitsource.ErrUnreachable) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAnEmptyAnswerToAPush(t *testing.T) {
	h := newHost(t)
	base := h.commit("one", map[string]string{"a": "1"})
	s := h.store(t.TempDir())
	fetch(t, s)
	h.silent.Store(true)
	next := write(t, s, base, gitsource.Change{Path: "a", Content: []byte("2")})
	if err := s.Push(context.Background(), mainRef, base, next); !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
