package progressive

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

var repeats = flag.Int("repeats", 5, "how often a version fails in each row of BenchmarkFail")

// by is errors5xx with a weight of its own.
func by(weight int) string {
	return fmt.Sprintf(`{canary: {progressDeadline: 1m, steps: [{weight: %d}, {analysis: [%s]}]}}`, weight, strings.Replace(errors5xx, "count: 12", "count: 120", 1))
}

// BenchmarkFail lets versions fail behind the gateway again and again, and tells how long each part of the way back took.
func BenchmarkFail(b *testing.B) {
	for b.Loop() {
		p := newPort(b)
		imperfect, err := p.image(b.Context(), "one-percent", map[string]string{"SHOP_VERSION": "1", "SHOP_FAILS": "1"})
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range []struct {
			app                 string
			rate, weight, fails int
			stable              string
			besides             string
		}{
			{"brig", 300, 20, 33, p.good, ""},
			{"yawl", 100, 10, 10, imperfect, "1"},
		} {
			s := p.beginWith(b, f.app, f.stable, by(f.weight))
			all := s.asked(f.rate)
			var seen, traffic, commit, asInGit, agreed []time.Duration
			for i := range *repeats {
				image, err := p.image(b.Context(), fmt.Sprintf("%s-%d", f.app, i), map[string]string{
					"SHOP_VERSION": "3", "SHOP_FAILS": fmt.Sprint(f.fails), "SHOP_RUN": fmt.Sprint(i),
				})
				if err != nil {
					b.Fatal(err)
				}
				r := s.comesBack(bad{image: image, reason: "WorseThanBaseline", besides: f.besides}, f.stable, all)
				seen, traffic, commit = append(seen, r.seen), append(traffic, r.traffic), append(commit, r.commit)
				asInGit, agreed = append(asInGit, r.asInGit), append(agreed, r.agreed)
			}
			all.stop()
			table(b, fmt.Sprintf("%d requests a second, %d%% of them to a version that fails at %d%% (stable: %d%%), %d times", f.rate, f.weight, f.fails, len(f.besides), *repeats), []row{
				{"from its first answer to the Fail", spread(seen), "30 s"},
				{"from the Fail to its last answer", spread(traffic), "1 s"},
				{"from the Fail to the revert commit", spread(commit), "3 s"},
				{"from the Fail until the workload, its configuration, Services and Routes are what Git says", spread(asInGit), "10 s"},
				{"from the Fail until nothing is beside them, not even pods that end", spread(agreed), ""},
			})
		}
	}
}
