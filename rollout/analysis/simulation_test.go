package analysis_test

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

var simulations = flag.Int("simulations", 60, "rollouts to simulate for each row (10,000 for BENCH.md)")

const (
	alpha  = 0.05
	weight = 0.1
)

// peeked is the row in which the usual test has to be caught, or the simulation would not notice a breach.
const peeked = "errors 1%, any difference matters"

// equal is a world in which the canary is not worse by more than the minimal effect.
type equal struct {
	name             string
	canary, baseline float64
	effect           float64
}

func equals() []equal {
	return []equal{
		{"errors 0.1%, any difference matters", 0.001, 0.001, 0},
		{peeked, 0.01, 0.01, 0},
		{"errors 30%, any difference matters", 0.3, 0.3, 0},
		{"errors 1%, half a point matters", 0.01, 0.01, 0.005},
		{"canary worse by just the half point", 0.015, 0.01, 0.005},
	}
}

// alarms asks after each of requests whether the canary is called worse, by the sequential test and by the usual test
// that knows nothing of being asked again and again.
func (e equal) alarms(d dice, requests int) (sequential, usual bool) {
	test := analysis.Test{Alpha: alpha, Effect: e.effect, MinSamples: 1}
	var evidence analysis.Evidence
	var canary, baseline analysis.Counts
	for range requests {
		var one [2]analysis.Counts
		side, p := 1, e.baseline
		if d.Float64() < weight {
			side, p = 0, e.canary
		}
		one[side] = d.requests(1, p)
		if evidence = evidence.Add(one[0], one[1], e.effect); evidence.Waiting.Baseline.Total == 0 { // else it is as before
			sequential = sequential || test.Proportion(evidence).Worse
		}
		canary = analysis.Counts{Total: canary.Total + one[0].Total, Bad: canary.Bad + one[0].Bad}
		baseline = analysis.Counts{Total: baseline.Total + one[1].Total, Bad: baseline.Bad + one[1].Bad}
		usual = usual || canary.Total >= 30 && z(canary, baseline) > oneSided
	}
	return sequential, usual
}

// TestSimulationOfEqualVersions counts false alarms among rollouts of equal versions with a look after every request.
func TestSimulationOfEqualVersions(t *testing.T) {
	const requests = 3000
	t.Log("| equal versions, a look after each of 3,000 requests | sequential test: false alarms [95% interval] | usual test |")
	for _, e := range equals() {
		usual := 0
		both := each(*simulations, func(d dice) [2]bool {
			a, b := e.alarms(d, requests)
			return [2]bool{a, b}
		})
		n := 0
		for _, result := range both {
			n += count(result[:1])
			usual += count(result[1:])
		}
		low, high := wilson(n, len(both))
		t.Logf("| %s | %.2f%% [%.2f%%, %.2f%%] | %.1f%% |", e.name, 100*float64(n)/float64(len(both)), 100*low, 100*high, 100*float64(usual)/float64(len(both)))
		if low > alpha {
			t.Errorf("%s: %d false alarms of %d: more than alpha", e.name, n, len(both))
		}
		if low, _ := wilson(usual, len(both)); e.name == peeked && low < alpha {
			t.Errorf("%s: the usual test has %d false alarms of %d: this simulation finds no breach", e.name, usual, len(both))
		}
	}
}

func TestSimulationOfEqualLatencies(t *testing.T) {
	const looks = 200
	test := analysis.Test{Alpha: alpha, MinSamples: 1}
	alarms := count(each(*simulations, func(d dice) bool {
		var evidence analysis.LatencyEvidence
		for range looks {
			var err error
			if evidence, err = evidence.Add(d.latencies(1, 0.1), d.latencies(9, 0.1), 0); err != nil {
				panic(err)
			}
		}
		return test.Latency(evidence).Worse
	}))
	low, high := wilson(alarms, *simulations)
	t.Logf("| latency, a look after each of 200 requests of the canary | %.2f%% [%.2f%%, %.2f%%] | |", 100*float64(alarms)/float64(*simulations), 100*low, 100*high)
	if low > alpha {
		t.Errorf("%d false alarms of %d: more than alpha", alarms, *simulations)
	}
}

const (
	every   = 10 * time.Second
	horizon = 30 * time.Minute
	window  = 5 * time.Minute
)

// sight is how one way of judging saw a rollout: after how many looks it called the canary worse, 0 for never.
type sight struct{ sequential, threshold, window int }

// errorsSeen judges a canary with that error rate against a baseline with 1%.
func errorsSeen(d dice, perSecond, p float64) sight {
	test := analysis.Test{Alpha: alpha, Effect: 0.005, MinSamples: 1}
	var s sight
	var evidence analysis.Evidence
	var inWindow [2]analysis.Counts
	for look := 1; look <= int(horizon/every); look++ {
		n := d.arrivals(perSecond)
		canary, baseline := d.requests(n[0], p), d.requests(n[1], 0.01)
		evidence = evidence.Add(canary, baseline, test.Effect)
		first(&s.sequential, look, test.Proportion(evidence).Worse)
		first(&s.threshold, look, canary.Total > 0 && canary.Rate() > 0.02)
		for i, c := range []analysis.Counts{canary, baseline} {
			inWindow[i] = analysis.Counts{Total: inWindow[i].Total + c.Total, Bad: inWindow[i].Bad + c.Bad}
		}
		if look == int(window/every) {
			first(&s.window, look, z(inWindow[0], inWindow[1]) > oneSided)
		}
	}
	return s
}

// latencySeen judges a canary with that median against a baseline with 100 ms.
func latencySeen(d dice, perSecond, median float64) sight {
	test := analysis.Test{Alpha: alpha, Effect: 0.01, MinSamples: 1}
	var s sight
	var evidence analysis.LatencyEvidence
	var inWindow [2]analysis.Counts
	for look := 1; look <= int(horizon/every) && (s.sequential == 0 || s.threshold == 0 || look <= int(window/every)); look++ {
		n := d.arrivals(perSecond)
		canary, baseline := d.latencies(n[0], median), d.latencies(n[1], 0.1)
		var err error
		if evidence, err = evidence.Add(canary, baseline, test.Effect); err != nil {
			panic(err)
		}
		first(&s.sequential, look, test.Latency(evidence).Worse)
		first(&s.threshold, look, n[0] > 0 && quantile(canary, 0.95) > 1.1*quantile(baseline, 0.95))
		for i, b := range []analysis.Buckets{canary, baseline} {
			inWindow[i].Total += n[i]
			inWindow[i].Bad += n[i] - b.Counts[slices.Index(bounds, 0.25)]
		}
		if look == int(window/every) {
			first(&s.window, look, z(inWindow[0], inWindow[1]) > oneSided)
		}
	}
	return s
}

func first(at *int, look int, is bool) {
	if *at == 0 && is {
		*at = look
	}
}

// arrivals are the requests of canary and baseline between two looks.
func (d dice) arrivals(perSecond float64) [2]int64 {
	all := d.binomial(int64(20*perSecond*every.Seconds()), 0.05)
	canary := d.binomial(all, weight)
	return [2]int64{canary, all - canary}
}

// TestSimulationOfWorseVersions measures how long it takes to see a worse version, and how often an equal one is blamed
// within the same time.
func TestSimulationOfWorseVersions(t *testing.T) {
	n := max(*simulations/10, 20)
	t.Log("| what | requests/s | sequential: median, 90th, missed; false | threshold on one look: the same | one test after 5 minutes: the same |")
	for name, c := range map[string]struct {
		seen         func(d dice, perSecond, value float64) sight
		equal, worse float64
	}{
		"error rate 1% to 3%": {errorsSeen, 0.01, 0.03},
		"latency +20%":        {latencySeen, 0.1, 0.12},
	} {
		for _, perSecond := range []float64{10, 100, 1000} {
			worse := each(n, func(d dice) sight { return c.seen(d, perSecond, c.worse) })
			equal := each(n, func(d dice) sight { return c.seen(d, perSecond, c.equal) })
			of := func(all []sight, way func(sight) int) (looks []int) {
				for _, s := range all {
					looks = append(looks, way(s))
				}
				return looks
			}
			row := fmt.Sprintf("| %s | %g |", name, perSecond)
			for _, way := range []func(sight) int{
				func(s sight) int { return s.sequential },
				func(s sight) int { return s.threshold },
				func(s sight) int { return s.window },
			} {
				row += " " + describeLooks(of(worse, way)) + "; " + share(of(equal, way)) + " |"
			}
			t.Log(row)
			missed := slices.DeleteFunc(of(worse, func(s sight) int { return s.sequential }), func(look int) bool { return look > 0 })
			// one request of the canary per second is few: see BENCH.md
			if allowed := map[bool]int{true: n / 5, false: n / 100}[perSecond < 100]; len(missed) > allowed {
				t.Errorf("%s at %g requests per second: the sequential test misses %d of %d", name, perSecond, len(missed), n)
			}
			alarms := slices.DeleteFunc(of(equal, func(s sight) int { return s.sequential }), func(look int) bool { return look == 0 })
			if low, _ := wilson(len(alarms), n); low > alpha {
				t.Errorf("%s at %g requests per second: %d false alarms of %d", name, perSecond, len(alarms), n)
			}
		}
	}
}

// describeLooks gives the median and the 90th percentile of the time to see it, and the share that never saw it.
func describeLooks(looks []int) string {
	looks = slices.Clone(looks)
	missed := 0
	for i, look := range looks {
		if look == 0 {
			looks[i] = math.MaxInt32
			missed++
		}
	}
	slices.Sort(looks)
	at := func(q float64) string {
		look := looks[int(q*float64(len(looks)-1))]
		if look == math.MaxInt32 {
			return "-"
		}
		return (time.Duration(look) * every).String()
	}
	return fmt.Sprintf("%s, %s, %.1f%%", at(0.5), at(0.9), 100*float64(missed)/float64(len(looks)))
}

func share(looks []int) string {
	alarms := len(looks) - len(slices.DeleteFunc(slices.Clone(looks), func(look int) bool { return look > 0 }))
	return fmt.Sprintf("%.1f%%", 100*float64(alarms)/float64(len(looks)))
}
