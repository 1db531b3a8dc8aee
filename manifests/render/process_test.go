package render

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// More callers than children, over a recycled child: each gets its own Set.
func TestConcurrentRenders(t *testing.T) {
	renderer := newRenderer(t, func(o *Options) { o.Workers = 2 })
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for n := range 10 {
				value := fmt.Sprintf("%d-%d", caller, n)
				repo := shop().with(files{"apps/shop/base/app.properties": value})
				result, err := renderer.Render(t.Context(), repo.snapshot(), prod())
				if err != nil {
					t.Error(err)
					return
				}
				data, _ := result.Set.Objects[0].Object["data"].(map[string]any)
				if data["app.properties"] != value {
					t.Errorf("got %v, want %s", data, value)
				}
			}
		})
	}
	callers.Wait()
	for range 2 {
		child := <-renderer.slots
		if child != nil {
			child.renders = rendersPerChild
		}
		renderer.slots <- child
	}
	mustRender(t, renderer, shop(), prod())
}

// A child ends with its input: no child outlives a parent that was killed.
func TestChildEndsWithItsInput(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self, "render-child")
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(20*time.Second, func() { _ = child.Process.Kill() })
	defer stuck.Stop()
	if err := input.Close(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// A child that was killed while it had no work costs nothing.
func TestKilledWhileIdle(t *testing.T) {
	renderer := newRenderer(t, nil)
	mustRender(t, renderer, shop(), prod())
	child := <-renderer.slots
	if err := child.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	renderer.slots <- child
	changed := shop().with(files{"apps/shop/base/app.properties": "other"})
	if mustRender(t, renderer, changed, prod()).Memoised {
		t.Error("memoised")
	}
}

// A program that is no child, or that dies, costs an error and not the Renderer.
func TestBadChild(t *testing.T) {
	for _, command := range [][]string{{"/bin/true"}, {"/bin/echo", strings.Repeat("x", 100)}, {"/no/such/program"}} {
		renderer := newRenderer(t, func(o *Options) { o.Command = command })
		for range 2 {
			if _, err := renderer.Render(t.Context(), shop().snapshot(), prod()); err == nil {
				t.Errorf("%s rendered", command[0])
			}
		}
	}
}

func TestClosed(t *testing.T) {
	renderer := newRenderer(t, nil)
	for range 2 {
		if err := renderer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := renderer.Render(t.Context(), shop().snapshot(), prod()); err == nil {
		t.Error("rendered after Close")
	}
}

// BenchmarkColdStart has the start of a child in every render.
func BenchmarkColdStart(b *testing.B) {
	for b.Loop() {
		renderer := newRenderer(b, nil)
		mustRender(b, renderer, shop(), prod())
		_ = renderer.Close()
	}
}
