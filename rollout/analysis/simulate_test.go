package analysis_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

// dice are one rollout's chances: the same for the same number.
type dice struct{ *rand.Rand }

func roll(rollout int) dice { return dice{rand.New(rand.NewPCG(2026, uint64(rollout)))} }

// binomial draws the number of hits of n with probability p: by inversion that begins at the most probable number and
// goes outward, exact up to the arithmetic.
func (d dice) binomial(n int64, p float64) int64 {
	if n == 0 || p <= 0 {
		return 0
	}
	if !(p < 1) {
		return n
	}
	if n == 1 {
		if d.Float64() < p {
			return 1
		}
		return 0
	}
	mode := int64(float64(n+1) * p)
	density := func(k int64) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(k + 1))
		c, _ := math.Lgamma(float64(n - k + 1))
		return math.Exp(a - b - c + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
	odds, u := p/(1-p), d.Float64()
	up, down := density(mode), density(mode)
	if u -= up; u < 0 {
		return mode
	}
	for above, below := mode, mode; above < n || below > 0; {
		if above < n {
			up *= odds * float64(n-above) / float64(above+1)
			if above++; u < up {
				return above
			}
			u -= up
		}
		if below > 0 {
			down *= float64(below) / (odds * float64(n-below+1))
			if below--; u < down {
				return below
			}
			u -= down
		}
	}
	return mode // what rounding has left over
}

func (d dice) requests(n int64, p float64) analysis.Counts {
	return analysis.Counts{Total: n, Bad: d.binomial(n, p)}
}

// bounds are the default buckets of Prometheus' client.
var bounds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// latencies draws n of a log-normal distribution with that median in seconds and a shape of 0.6.
func (d dice) latencies(n int64, median float64) analysis.Buckets {
	b := analysis.Buckets{Bounds: bounds}
	left, below, sum := n, 0.0, int64(0)
	for _, bound := range bounds {
		share := 0.5 * math.Erfc(-math.Log(bound/median)/(0.6*math.Sqrt2))
		in := d.binomial(left, (share-below)/(1-below))
		left, below, sum = left-in, share, sum+in
		b.Counts = append(b.Counts, sum)
	}
	b.Counts = append(b.Counts, n)
	return b
}

// quantile interpolates within a bucket, as Prometheus' histogram_quantile does.
func quantile(b analysis.Buckets, q float64) float64 {
	rank := q * float64(b.Counts[len(b.Counts)-1])
	i, _ := slices.BinarySearchFunc(b.Counts, rank, func(n int64, rank float64) int {
		if float64(n) < rank {
			return -1
		}
		return 1
	})
	if i >= len(b.Bounds) {
		return b.Bounds[len(b.Bounds)-1]
	}
	low, before := 0.0, int64(0)
	if i > 0 {
		low, before = b.Bounds[i-1], b.Counts[i-1]
	}
	return low + (b.Bounds[i]-low)*(rank-float64(before))/float64(b.Counts[i]-before)
}

// z is the statistic of the usual test of two proportions, with the pooled variance.
func z(canary, baseline analysis.Counts) float64 {
	pooled := float64(canary.Bad+baseline.Bad) / float64(canary.Total+baseline.Total)
	sd := math.Sqrt(pooled * (1 - pooled) * (1/float64(canary.Total) + 1/float64(baseline.Total)))
	if !(sd > 0) {
		return 0
	}
	return (canary.Rate() - baseline.Rate()) / sd
}

// oneSided is the quantile of the normal distribution for alpha = 0.05.
const oneSided = 1.6448536269514722

// wilson is the 95% confidence interval of a share (E. Wilson: Probable inference, the law of succession, and statistical
// inference. J. American Statistical Association 22, 1927).
func wilson(hits, n int) (low, high float64) {
	const z = 1.959963984540054
	p, m := float64(hits)/float64(n), float64(n)
	centre, spread := p+z*z/(2*m), z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return (centre - spread) / (1 + z*z/m), (centre + spread) / (1 + z*z/m)
}

// each runs fn for n rollouts on all processors and returns the results in order.
func each[T any](n int, fn func(dice) T) []T {
	results := make([]T, n)
	var group sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < n; i += workers {
				results[i] = fn(roll(i))
			}
		})
	}
	group.Wait()
	return results
}

func count(results []bool) (n int) {
	for _, r := range results {
		if r {
			n++
		}
	}
	return n
}
