package analysis_test

import (
	"math"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

func TestShareAlpha(t *testing.T) {
	compare := func(alpha float64, dry bool) analysis.Metric {
		return analysis.Metric{Errors: &analysis.Test{Alpha: alpha}, DryRun: dry}
	}
	bound := analysis.Metric{Range: &analysis.Range{}}
	for name, c := range map[string]struct {
		background, step []analysis.Metric
		want             []float64
		wrong            string
	}{
		"one takes all":                     {step: []analysis.Metric{compare(0, false)}, want: []float64{0.06}},
		"steps and background alike":        {[]analysis.Metric{compare(0, false)}, []analysis.Metric{compare(0, false), bound, compare(0, false)}, []float64{0.02, 0.02, 0.02}, ""},
		"after those that have one":         {[]analysis.Metric{compare(0.04, false)}, []analysis.Metric{compare(0, false), compare(0, false)}, []float64{0.04, 0.01, 0.01}, ""},
		"a dry run takes none":              {[]analysis.Metric{compare(0, true)}, []analysis.Metric{compare(0, false)}, []float64{0.06, 0.06}, ""},
		"all have one, together even more":  {[]analysis.Metric{compare(0.05, false)}, []analysis.Metric{compare(0.05, false)}, []float64{0.05, 0.05}, ""},
		"nothing is left for the last":      {step: []analysis.Metric{compare(0.06, false), compare(0, false)}, wrong: "take all of 0.06, and 1 have none"},
		"there are no tests, only a bound ": {step: []analysis.Metric{bound}},
	} {
		t.Run(name, func(t *testing.T) {
			s := analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Analysis: c.step}}, Analysis: c.background}}
			err := s.ShareAlpha(0.06)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("error %v, want %q", err, c.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []float64
			for _, m := range append(append([]analysis.Metric(nil), c.background...), c.step...) {
				if m.Errors != nil {
					got = append(got, m.Errors.Alpha)
				}
			}
			for i := range max(len(got), len(c.want)) {
				if len(got) != len(c.want) || math.Abs(got[i]-c.want[i]) > 1e-12 {
					t.Fatalf("alphas %v, want %v", got, c.want)
				}
			}
		})
	}
}
