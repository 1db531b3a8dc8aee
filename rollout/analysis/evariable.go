package analysis

import "math"

// Counts is what a version did: requests, and those of them that were bad (errors, or slower than a bound).
type Counts struct {
	Total int64
	Bad   int64
}

func (c Counts) plus(more Counts) Counts {
	return Counts{Total: c.Total + more.Total, Bad: c.Bad + more.Bad}
}

// Rate is the share of bad requests, NaN without requests.
func (c Counts) Rate() float64 { return float64(c.Bad) / float64(c.Total) }

// block is what both versions did in the same stretch of time.
type block struct{ canary, baseline Counts }

// The null hypothesis is p ≤ q + δ: the canary's rate of bad requests exceeds the baseline's by no more than the
// minimal effect. A bet on the alternative (a, b) with a > b + δ, made before the block is seen, pays
//
//	S = L(a; canary) L(b; baseline) / (L(a°; canary) L(b°; baseline)),   L(p; bad of n) = p^bad (1-p)^(n-bad)
//
// where (a°, b°) with a° = b° + δ is the point of the null that is nearest to the bet,
//
//	(a°, b°) = argmin  n KL(a ‖ a°) + m KL(b ‖ b°),   n and m the requests of canary and baseline.
//
// S is an e-variable: its expectation is at most 1 under every (p, q) of the null. For the expectation is
// f(p)^n g(q)^m with f(p) = p a/a° + (1-p)(1-a)/(1-a°) and g alike. Its logarithm is concave in (p, q) and 0 at
// (a°, b°), and its gradient there is minus the gradient of the divergence that (a°, b°) minimises over a convex set, so
// that it does not rise into the null. By the same concavity (Jensen) requests of one block need not have the same
// rate: it is enough that they are independent and that the mean of the canary's rates is at most the baseline's plus δ.
// So rates that drift for both, over the day or with a dependency, are within the null.
//
// This is the 2x2 e-variable by reverse information projection:
//   - R. Turner, A. Ly, P. Grünwald: Generic E-variables for exact sequential k-sample tests that allow for optional
//     stopping. J. Statistical Planning and Inference 230 (2024), arXiv:2106.02693 (δ = 0, the beta prior, blocks).
//   - R. Turner, P. Grünwald: Exact anytime-valid confidence intervals for contingency tables and beyond. Statistics &
//     Probability Letters 198 (2023), arXiv:2203.09785 (convex nulls such as this one).
//
// A mixture of bets whose weights do not depend on the block is an e-variable too (H. Robbins: Statistical methods
// related to the law of the iterated logarithm. Ann. Math. Stat. 41, 1970). The product over disjoint blocks is a test
// supermartingale, whatever the sizes of the blocks, and by Ville's inequality
//
//	P(the product ever reaches 1/α) ≤ α under the null,
//
// at any time of looking and however often:
//   - R. Johari, P. Koomen, L. Pekelis, D. Walsh: Always valid inference: continuous monitoring of A/B tests. Operations
//     Research 70(3), 2022, arXiv:1512.04922.
//   - S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon: Time-uniform, nonparametric, nonasymptotic confidence sequences.
//     Ann. Stat. 49(2), 2021, arXiv:1810.08240.
//   - A. Ramdas, P. Grünwald, V. Vovk, G. Shafer: Game-theoretic statistics and safe anytime-valid inference. Statistical
//     Science 38(4), 2023, arXiv:2210.01948 (e-values).

// bet is an alternative with the weight that it has in the mixture.
type bet struct{ canary, baseline, weight float64 }

// hermite are the nodes and weights of Gauss-Hermite quadrature for the standard normal distribution, five points.
var hermite = [5][2]float64{
	{-2.8569700138728, 0.0112574113277},
	{-1.3556261799742, 0.2220759220056},
	{0, 0.5333333333333},
	{1.3556261799742, 0.2220759220056},
	{2.8569700138728, 0.0112574113277},
}

// bets are what has been learnt before the block: the posteriors of both rates, approximated by a normal distribution
// of the log odds, on a grid. The baseline's prior is Jeffreys' Beta(½, ½). The canary's has the mean that the baseline's
// posterior has and the weight of one bad request: until it has shown something else it is expected to be like the
// baseline. Any choice keeps α; this one decides how soon a difference is seen.
func bets(before block) (grid [len(hermite) * len(hermite)]bet) {
	good := func(c Counts) float64 { return float64(c.Total - c.Bad) }
	b0, b1 := good(before.baseline)+0.5, float64(before.baseline.Bad)+0.5
	mean := b1 / (b0 + b1)
	prior := 1 / min(mean, 1-mean)
	c0, c1 := good(before.canary)+prior*(1-mean), float64(before.canary.Bad)+prior*mean
	for i, x := range hermite {
		canary := logistic(math.Log(c1/c0) + x[0]*math.Sqrt(1/c0+1/c1))
		for k, y := range hermite {
			baseline := logistic(math.Log(b1/b0) + y[0]*math.Sqrt(1/b0+1/b1))
			grid[i*len(hermite)+k] = bet{canary: canary, baseline: baseline, weight: x[1] * y[1]}
		}
	}
	return grid
}

// logistic keeps away from 0 and 1, where one request would decide everything.
func logistic(x float64) float64 { return min(max(1/(1+math.Exp(-x)), 1e-9), 1-1e-9) }

// logEvidence is the logarithm of the mixture's payment for a block, given all blocks before it.
func logEvidence(before, now block, effect float64) float64 {
	sum, weights := 0.0, 0.0
	highest := math.Inf(-1)
	var pays [len(hermite) * len(hermite)]float64
	grid := bets(before)
	for i, b := range grid {
		pays[i] = b.pays(now, effect)
		highest = max(highest, pays[i])
	}
	for i, b := range grid {
		sum += b.weight * math.Exp(pays[i]-highest)
		weights += b.weight
	}
	return highest + math.Log(sum/weights)
}

// pays is the logarithm of S. A bet that lies within the null pays 1: nothing is staked.
func (b bet) pays(now block, effect float64) float64 {
	if b.canary <= b.baseline+effect {
		return 0
	}
	nearest := project(b, float64(now.canary.Total), float64(now.baseline.Total), effect)
	return logLikelihood(b.canary, nearest+effect, now.canary) + logLikelihood(b.baseline, nearest, now.baseline)
}

// logLikelihood is the logarithm of L(p; c) / L(q; c).
func logLikelihood(p, q float64, c Counts) float64 {
	return float64(c.Bad)*math.Log(p/q) + float64(c.Total-c.Bad)*math.Log((1-p)/(1-q))
}

// project finds b°. The derivative of the divergence rises through zero between b and a - δ; Newton's steps that leave
// this bracket are replaced by halving it.
func project(b bet, n, m, effect float64) float64 {
	if effect == 0 {
		return (n*b.canary + m*b.baseline) / (n + m)
	}
	low, high := b.baseline, b.canary-effect
	at := (n*high + m*low) / (n + m)
	for range 60 {
		v, w := (at+effect)*(1-at-effect), at*(1-at)
		u, d := at+effect-b.canary, at-b.baseline
		slope := n*u/v + m*d/w
		if slope > 0 {
			high = at
		} else {
			low = at
		}
		curve := n*(v-u*(1-2*(at+effect)))/(v*v) + m*(w-d*(1-2*at))/(w*w)
		next := at - slope/curve
		if !(next > low && next < high) {
			next = (low + high) / 2
		}
		if math.Abs(next-at) <= 1e-13*at {
			return next
		}
		at = next
	}
	return at
}
