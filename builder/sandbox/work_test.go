package sandbox_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder/sandbox"
)

// TestStepsCanWork: what isolation leaves is enough for a build.
func TestStepsCanWork(t *testing.T) {
	w := newWorld(t, nil)
	files := map[string]string{
		"go.mod":      "module example.com/tiny\n\ngo 1.26\n",
		"main.go":     "package main\n\nfunc main() { println(\"built inside\") }\n",
		"in/a/b/file": "deep",
	}
	for name, content := range files {
		path := filepath.Join(w.workspace, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	cache := open(t)
	result, out := w.sh("go build -buildvcs=false -o tiny . && ./tiny && cat in/a/b/file && mkdir closed && touch closed/x && chmod 0 closed && pwd && id -u", func(s *sandbox.Spec) {
		s.Mounts = []sandbox.Mount{{Source: cache, Target: "/cache", Writable: true}}
		s.Env = []string{"HOME=/tmp", "GOCACHE=/cache/build", "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local"}
		s.Timeout = 3 * time.Minute
	})
	if result.ExitCode != 0 || out != "built inside\ndeep/workspace\n0\n" {
		t.Fatalf("%+v\n%s", result, out)
	}
	if content, err := os.ReadFile(filepath.Join(w.workspace, "tiny")); err != nil || len(content) == 0 {
		t.Errorf("the worker cannot read what was built: %v", err)
	}
	if err := sandbox.RemoveAll(w.workspace); err != nil {
		t.Errorf("the worker cannot remove the workspace: %v", err)
	}
	if err := os.Mkdir(w.workspace, 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestRootFS: an image is a folder, of which a step sees nothing but what it holds.
func TestRootFS(t *testing.T) {
	w := newWorld(t, nil)
	root := open(t)
	libraries, err := exec.CommandContext(t.Context(), "ldd", "/bin/sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(strings.Fields(string(libraries)), "/bin/sh") {
		if !filepath.IsAbs(file) {
			continue
		}
		content, err := os.ReadFile(file)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(root+file), 0o755), os.WriteFile(root+file, content, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	result, out := w.sh("echo /* /usr/*; echo made > made; echo x > /x || echo read-only", func(s *sandbox.Spec) { s.RootFS, s.Network = root, true })
	if result.ExitCode != 0 || !strings.Contains(out, "read-only\n") || strings.Contains(out, "/root") || strings.Contains(out, "/usr/share") || !strings.Contains(out, " /workspace ") {
		t.Errorf("%+v\n%s", result, out)
	}
	if content, err := os.ReadFile(filepath.Join(w.workspace, "made")); err != nil || string(content) != "made\n" {
		t.Errorf("%q %v", content, err)
	}
	// One with a link out of it.
	root = open(t)
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "bin"), 0o755), os.Symlink("/etc", filepath.Join(root, "tmp"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.try(t.Context(), "true", func(s *sandbox.Spec) { s.RootFS = root }); err == nil {
		t.Error("an image whose /tmp leads out of it was run")
	}
}
