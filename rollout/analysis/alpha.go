package analysis

import "fmt"

// ShareAlpha gives each test of s that has no Alpha yet an equal part of what the others leave of alpha. By the union
// bound (Bonferroni) alpha bounds the probability that any test of any step calls a canary worse that is not. Tests that
// decide nothing, of a dry run, cost nothing. It changes the tests that s points to.
func (s Strategy) ShareAlpha(alpha float64) error {
	c, _ := s.course()
	metrics := append([]Metric(nil), c.background...)
	for _, step := range c.steps {
		metrics = append(metrics, step.Analysis...)
	}
	var open []*Test
	left := alpha
	for _, m := range metrics {
		switch test := m.test(); {
		case test == nil:
		case test.Alpha == 0 && m.DryRun:
			test.Alpha = alpha
		case test.Alpha == 0:
			open = append(open, test)
		case !m.DryRun:
			left -= test.Alpha
		}
	}
	if len(open) > 0 && left <= 0 {
		return fmt.Errorf("alpha: metrics with one of their own take all of %v, and %d have none (lower those, or raise the whole)", alpha, len(open))
	}
	for _, test := range open {
		test.Alpha = left / float64(len(open))
	}
	return nil
}
