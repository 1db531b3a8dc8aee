package analysis_test

import (
	"encoding/json"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

// TestExpectationUnderTheNull sums over all outcomes of a block: whatever has been seen before, and wherever in the null
// the rates are, what the bet pays is at most 1 on average. All guarantees follow from this.
func TestExpectationUnderTheNull(t *testing.T) {
	pasts := map[string][2]analysis.Counts{
		"nothing":             {},
		"equal":               {{Total: 100, Bad: 5}, {Total: 900, Bad: 45}},
		"worse":               {{Total: 100, Bad: 30}, {Total: 900, Bad: 45}},
		"better":              {{Total: 100}, {Total: 900, Bad: 300}},
		"all bad":             {{Total: 40, Bad: 40}, {Total: 40, Bad: 39}},
		"canary without past": {{}, {Total: 500, Bad: 10}},
	}
	rates := []float64{0, 0.001, 0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 0.99, 1}
	highest := 0.0
	for past, before := range pasts {
		for _, size := range [][2]int64{{1, 1}, {1, 9}, {9, 1}, {5, 12}, {20, 20}} {
			for _, effect := range []float64{0, 0.005, 0.1, 0.5} {
				pays := payments(before, size, effect)
				for _, q := range rates {
					for _, p := range append(rates, q+effect) {
						if p > q+effect || p > 1 {
							continue
						}
						mean := expectation(pays, size, p, q)
						highest = max(highest, mean)
						if mean > 1+1e-9 {
							t.Errorf("%s, %v requests, effect %v, rates %v and %v: pays %v on average", past, size, effect, p, q, mean)
						}
					}
				}
				if better := expectation(pays, size, 1, 0); past == "worse" && effect < 0.1 && better <= 1 {
					t.Errorf("%v requests, effect %v: pays %v on average when the canary is worse", size, effect, better)
				}
			}
		}
	}
	t.Logf("at most %.9f", highest)
}

// payments are what the bet pays for each number of bad requests of canary and baseline.
func payments(before [2]analysis.Counts, size [2]int64, effect float64) [][]float64 {
	past := analysis.Evidence{Canary: before[0], Baseline: before[1]}
	pays := make([][]float64, size[0]+1)
	for i := range pays {
		for k := range size[1] + 1 {
			now := past.Add(analysis.Counts{Total: size[0], Bad: int64(i)}, analysis.Counts{Total: size[1], Bad: k}, effect)
			pays[i] = append(pays[i], math.Exp(now.Log))
		}
	}
	return pays
}

func expectation(pays [][]float64, size [2]int64, p, q float64) (mean float64) {
	for i, row := range pays {
		for k, pay := range row {
			mean += pay * density(size[0], int64(i), p) * density(size[1], int64(k), q)
		}
	}
	return mean
}

func density(n, k int64, p float64) float64 {
	ways, _ := new(big.Float).SetInt(new(big.Int).Binomial(n, k)).Float64()
	return ways * math.Pow(p, float64(k)) * math.Pow(1-p, float64(n-k))
}

func TestTestsThatFindSomething(t *testing.T) {
	test := analysis.Test{Alpha: 0.05, Effect: 0.005, MinSamples: 50, MaxSamples: 1000}
	var worse, equal analysis.Evidence
	for range 10 {
		worse = worse.Add(analysis.Counts{Total: 100, Bad: 6}, analysis.Counts{Total: 900, Bad: 9}, test.Effect)
		equal = equal.Add(analysis.Counts{Total: 100, Bad: 1}, analysis.Counts{Total: 900, Bad: 9}, test.Effect)
	}
	found := test.Proportion(worse)
	if !found.Worse || found.P > 0.001 || found.E < 1000 || math.Abs(found.Effect()-0.05) > 1e-12 {
		t.Errorf("%+v", found)
	}
	if text := found.String(); !strings.HasPrefix(text, "canary 60 of 1000 bad (6%), baseline 90 of 9000 (1%), p=") {
		t.Errorf("%s", text)
	}
	if found := test.Proportion(equal); found.Worse || !found.Done || !found.Enough || found.P < 0.5 {
		t.Errorf("%+v", found)
	}
	// what has been called worse once stays so, although the evidence melts away
	for range 100 {
		worse = worse.Add(analysis.Counts{Total: 100}, analysis.Counts{Total: 900, Bad: 9}, test.Effect)
	}
	if found := test.Proportion(worse); !found.Worse || found.E > 1 {
		t.Errorf("%+v", found)
	}
}

// Evidence that is written down and read again goes on as if nothing had happened.
func TestEvidenceSurvives(t *testing.T) {
	var kept, restarted analysis.LatencyEvidence
	for i := range 20 {
		d := roll(i)
		canary, baseline := d.latencies(50, 0.12), d.latencies(450, 0.1)
		for _, l := range []*analysis.LatencyEvidence{&kept, &restarted} {
			var err error
			if *l, err = l.Add(canary, baseline, 0.01); err != nil {
				t.Fatal(err)
			}
		}
		text, err := json.Marshal(restarted)
		if err != nil {
			t.Fatal(err)
		}
		restarted = analysis.LatencyEvidence{}
		if err := json.Unmarshal(text, &restarted); err != nil {
			t.Fatal(err)
		}
	}
	test := analysis.Test{Alpha: 0.05, MinSamples: 1}
	if a, b := test.Latency(kept), test.Latency(restarted); a != b || !a.Worse || a.Bound == 0 {
		t.Errorf("%+v\n%+v", a, b)
	}
}

// Requests that came while the other version had none are not lost, and not counted twice.
func TestRequestsWaitForTheOtherVersion(t *testing.T) {
	var apart, together analysis.Evidence
	for _, c := range []analysis.Counts{{Total: 5}, {Total: 9, Bad: 2}, {Total: 4, Bad: 1}} {
		apart = apart.Add(analysis.Counts{}, c, 0)
		if apart.Log != 0 || apart.Baseline.Total != 0 {
			t.Errorf("one side alone is judged: %+v", apart)
		}
	}
	apart = apart.Add(analysis.Counts{Total: 3, Bad: 3}, analysis.Counts{}, 0)
	together = together.Add(analysis.Counts{Total: 3, Bad: 3}, analysis.Counts{Total: 18, Bad: 3}, 0)
	if apart != together || together.Log <= 0 {
		t.Errorf("%+v\n%+v", apart, together)
	}
}

func FuzzEvidence(f *testing.F) {
	f.Add(uint16(3), uint16(100), uint16(9), uint16(900), uint16(5))
	f.Add(uint16(65535), uint16(65535), uint16(0), uint16(65535), uint16(0))
	f.Add(uint16(1), uint16(1), uint16(0), uint16(1), uint16(999))
	f.Fuzz(func(t *testing.T, a, n, b, m, effect uint16) {
		canary := analysis.Counts{Total: int64(max(a, n)), Bad: int64(min(a, n))}
		baseline := analysis.Counts{Total: int64(max(b, m)), Bad: int64(min(b, m))}
		delta := float64(effect%1000) / 1000
		var e analysis.Evidence
		for range 5 {
			e = e.Add(canary, baseline, delta)
			if math.IsNaN(e.Log) || math.IsInf(e.Log, 0) || e.Peak < e.Log {
				t.Fatalf("%+v", e)
			}
		}
		test := analysis.Test{Alpha: 0.05, Effect: delta, MinSamples: 1}
		if found := test.Proportion(e); found.Worse && found.Effect() <= delta {
			t.Fatalf("called worse without being it: %+v", found)
		}
	})
}
