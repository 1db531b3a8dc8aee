package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

func TestImageSpecsThatMeanNothingAreRefused(t *testing.T) {
	r := registry(t)
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("bytes"), 0o755); err != nil {
		t.Fatal(err)
	}
	for want, spec := range map[string]cluster.ImageSpec{
		"either a package or a binary": {Repository: "a"},
		"needs either":                 {Repository: "a", Package: "testdata/web", Binary: program},
		`"neverready" must be`:         {Repository: "a", Binary: program, Labels: map[string]string{cluster.BehaviourLabel: "neverready"}},
		"no such file":                 {Repository: "a", Binary: program + "-absent"},
	} {
		if ref, err := cluster.BuildImage(t.Context(), r, spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, %v; want an error with %q", ref, err, want)
		}
	}
	spec := cluster.ImageSpec{Repository: "a", Binary: program, Labels: map[string]string{cluster.BehaviourLabel: "crash"}}
	first, err := cluster.BuildImage(t.Context(), r, spec)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := cluster.BuildImage(t.Context(), r, spec); err != nil || again != first {
		t.Errorf("equal inputs: %s and %s, %v", first, again, err)
	}
}
