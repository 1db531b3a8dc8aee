package pipeline_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
)

var update = flag.Bool("update", false, "write the golden files anew")

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestBroken holds what people are told about each broken definition.
func TestBroken(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "broken", "*.yml"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d definitions, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yml")
		t.Run(name, func(t *testing.T) {
			_, err := pipeline.Parse(read(t, filepath.Join("broken", name+".yml")))
			if err == nil {
				t.Fatal("it was read")
			}
			got, golden := err.Error()+"\n", filepath.Join("testdata", "broken", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("got\n%swant\n%s%v", got, want, err)
			}
		})
	}
}

func TestWhole(t *testing.T) {
	p, err := pipeline.Parse(read(t, "whole.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "shop" || p.Isolation != pipeline.Isolated || p.Env["GOFLAGS"] != "-mod=readonly" || len(p.Stages) != 4 {
		t.Errorf("got %+v", p)
	}
	test, found := p.Stage("test")
	want := pipeline.Stage{
		Name: "test", Image: "registry.example/golang@sha256:" + strings.Repeat("0", 64), Network: true,
		Timeout: 10 * time.Minute, Retries: 2, Env: map[string]string{"CGO_ENABLED": "0"}, Line: 16,
		Steps: []pipeline.Step{
			{Name: "checkout", Uses: "checkout", Line: 23},
			{Name: "go test ./...", Run: "go test ./...", Env: map[string]string{"VERBOSE": "1"}, Line: 24},
		},
	}
	test.Steps[0].With = nil
	if !found || !reflect.DeepEqual(test, want) {
		t.Errorf("got  %+v\nwant %+v", test, want)
	}
	if lint := p.Stages[0]; lint.Timeout != pipeline.DefaultTimeout || lint.Steps[1].Name != "vet" || lint.Promotes() {
		t.Errorf("got %+v", lint)
	}
	if got := p.Images("dev"); !slices.Equal(got, []string{"image"}) || !p.Stages[3].Promotes() {
		t.Errorf("got %v", got)
	}
}

func TestTriggered(t *testing.T) {
	for _, test := range []struct {
		pattern, branch string
		want            bool
	}{
		{"main", "main", true},
		{"main", "mains", false},
		{"main", "", false},
		{"release/*", "release/1.2", true},
		{"release/*", "release/1/2", false},
		{"release/*", "release/", true},
		{"**", "a/b/c", true},
		{"feature/**/x", "feature/a/b/x", true},
		{"feature/**/x", "feature/a/b/y", false},
		{"v?", "v1", true},
		{"v?", "v/", false},
		{"v?", "v", false},
		{"***", "a/b", true},
		{"größe-*", "größe-1", true},
		{strings.Repeat("*a", 100), strings.Repeat("a", 200) + "b", false},
	} {
		p := pipeline.Pipeline{Trigger: pipeline.Trigger{Branches: []string{"never", test.pattern}}}
		if got := p.Triggered(test.branch); got != test.want {
			t.Errorf("%q with %q: %t", test.branch, test.pattern, got)
		}
	}
	p, err := pipeline.Parse([]byte("name: a\nstages: [{name: b, steps: [{run: c}]}]\n"))
	if err != nil || !p.Triggered("main") || p.Triggered("other") {
		t.Errorf("%v %v", p.Trigger, err)
	}
}

func TestReadyAndBlocked(t *testing.T) {
	p, err := pipeline.Parse(read(t, "whole.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		state   map[string]builder.State
		ready   []string
		blocked []string
	}{
		{nil, []string{"lint", "test"}, nil},
		{map[string]builder.State{"lint": builder.Running}, []string{"test"}, nil},
		{map[string]builder.State{"lint": builder.Succeeded, "test": builder.Attesting}, nil, nil},
		{map[string]builder.State{"lint": builder.Succeeded, "test": builder.Succeeded}, []string{"image"}, nil},
		{map[string]builder.State{"lint": builder.Failed, "test": builder.Running}, nil, []string{"image", "dev"}},
		{map[string]builder.State{"lint": builder.Cancelled}, []string{"test"}, []string{"image", "dev"}},
		{map[string]builder.State{"lint": builder.Succeeded, "test": builder.Succeeded, "image": builder.Skipped}, nil, []string{"dev"}},
	} {
		state := func(stage string) builder.State { return test.state[stage] }
		if got := p.Ready(state); !slices.Equal(got, test.ready) {
			t.Errorf("%v: ready %v, want %v", test.state, got, test.ready)
		}
		if got := p.Blocked(state); !slices.Equal(got, test.blocked) {
			t.Errorf("%v: blocked %v, want %v", test.state, got, test.blocked)
		}
	}
}

// FuzzParse: nothing panics, each fault has a place, and what was read can be scheduled to its end in the order of its needs.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.yml"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, filepath.Join("testdata", "whole.yml")) {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := pipeline.Parse(content)
		if err != nil {
			var fault *pipeline.Error
			if !errors.As(err, &fault) || fault.Line < 1 || fault.Column < 1 {
				t.Fatalf("no place in %v", err)
			}
			return
		}
		states := map[string]builder.State{}
		for range p.Stages {
			ready := p.Ready(func(s string) builder.State { return states[s] })
			for _, name := range ready {
				s, _ := p.Stage(name)
				for _, need := range s.Needs {
					if states[need] != builder.Succeeded {
						t.Fatalf("%s is ready before %s", name, need)
					}
				}
			}
			for _, name := range ready {
				states[name] = builder.Succeeded
			}
		}
		for _, s := range p.Stages {
			if states[s.Name] != builder.Succeeded {
				t.Fatalf("%s never became ready", s.Name)
			}
		}
		for _, s := range p.Stages {
			endsAfter(t, p, s.Name)
		}
	})
}

// endsAfter holds that every stage ends when failing fails, and that what is blocked is what it holds up.
func endsAfter(t *testing.T, p pipeline.Pipeline, failing string) {
	t.Helper()
	states := map[string]builder.State{}
	state := func(s string) builder.State { return states[s] }
	for range p.Stages {
		blocked := p.Blocked(state)
		for _, name := range p.Ready(state) {
			if slices.Contains(blocked, name) {
				t.Fatalf("%s is ready and blocked", name)
			}
			states[name] = builder.Succeeded
			if name == failing {
				states[name] = builder.Failed
			}
		}
	}
	for _, name := range p.Blocked(state) {
		states[name] = builder.Skipped
	}
	for _, s := range p.Stages {
		held := slices.ContainsFunc(s.Needs, func(need string) bool { return states[need] != builder.Succeeded })
		if !states[s.Name].Ended() || held != (states[s.Name] == builder.Skipped) {
			t.Fatalf("%s fails, and %s is %s", failing, s.Name, states[s.Name])
		}
	}
}

// TestHostile holds what a file within the bound of its size can cost: its faults are more than anybody reads.
func TestHostile(t *testing.T) {
	var b strings.Builder
	b.WriteString("name: a\nstages:\n")
	for i := range 199 {
		fmt.Fprintf(&b, "- {name: %s%03d, steps: [{run: c}]}\n", strings.Repeat("z", 60), i)
	}
	b.WriteString("- {name: last, steps: [{run: c}], needs: [")
	for i := 0; b.Len() < 250<<10; i++ {
		fmt.Fprintf(&b, "%x,", i)
	}
	b.WriteString("]}\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := pipeline.Parse([]byte(b.String()))
	runtime.ReadMemStats(&after)
	if err == nil || len(err.Error()) > 1<<20 {
		t.Errorf("got %.200v", err)
	}
	if cost := after.TotalAlloc - before.TotalAlloc; cost > 256<<20 {
		t.Errorf("%d MB for %d kB", cost>>20, b.Len()>>10)
	}
	if _, err := pipeline.Parse([]byte(strings.Repeat("#", 257<<10))); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too large: %v", err)
	}
}

func TestTrueInAllItsSpellings(t *testing.T) {
	for word, want := range map[string]bool{"true": true, "True": true, "TRUE": true, "false": false, "False": false} {
		p, err := pipeline.Parse([]byte("name: a\nstages: [{name: b, network: " + word + ", steps: [{run: c}]}]\n"))
		if err != nil || p.Stages[0].Network != want {
			t.Errorf("network: %s gives %+v, %v", word, p.Stages, err)
		}
	}
}
