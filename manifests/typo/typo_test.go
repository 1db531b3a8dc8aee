package typo_test

import (
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/manifests/typo"
)

func TestWayOut(t *testing.T) {
	for name, c := range map[string]struct {
		word  string
		known []string
		want  string
	}{
		"one letter":                     {"stagse", []string{"stages", "env"}, `did you mean "stages"?`},
		"case":                           {"STAGES", []string{"stages"}, `did you mean "stages"?`},
		"the nearest of two":             {"tests", []string{"rest", "test"}, `did you mean "test"?`},
		"two letters in the wrong order": {"dve", []string{"dev", "live"}, `did you mean "dev"?`},
		"another word":                   {"ab", []string{"cd", "ef"}, "known are cd, ef"},
		"nothing is known":               {"ab", nil, "there are none"},
		"too long to be read":            {strings.Repeat("a", 1<<20), []string{strings.Repeat("a", 65)}, "known are " + strings.Repeat("a", 65)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := typo.WayOut(c.word, c.known); got != c.want {
				t.Errorf("WayOut(%.20q, %v) = %q, want %q", c.word, c.known, got, c.want)
			}
		})
	}
}
