package analysis_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

// Changes of the metrics of the tables.
var (
	proceed  = insufficient(analysis.Proceed)
	rollback = insufficient(analysis.Rollback)
	dryRun   = func(m *analysis.Metric) { m.DryRun = true }
)

func of(m analysis.Metric, changes ...func(*analysis.Metric)) analysis.Metric {
	for _, change := range changes {
		change(&m)
	}
	return m
}

func delay(d time.Duration) func(*analysis.Metric) {
	return func(m *analysis.Metric) { m.InitialDelay = d }
}

func within(low, high *float64) func(*analysis.Metric) {
	return func(m *analysis.Metric) { m.Range = &analysis.Range{Min: low, Max: high} }
}

func apart(above, below *float64) func(*analysis.Metric) {
	return func(m *analysis.Metric) { m.Relative = &analysis.Relative{Above: above, Below: below} }
}

// tested changes the test of a metric.
func tested(change func(*analysis.Test)) func(*analysis.Metric) {
	return func(m *analysis.Metric) {
		for _, test := range []**analysis.Test{&m.Errors, &m.Latency} {
			if *test != nil {
				changed := **test
				change(&changed)
				*test = &changed
			}
		}
	}
}

// Whether the outcome may revert the commit in Git.
const (
	reverts = true
	stays   = false
)

type meaning struct {
	name    string
	metric  analysis.Metric
	looks   string
	want    string
	git     bool
	because string
}

// meanings are what looks mean, a word each (see occurrences).
var meanings = []meaning{
	{"nothing seen", inRange, "", "open", stays, "nothing can be passed unseen"},
	{"too few looks", inRange, "2 3", "open", stays, "count says how many it takes"},
	{"within bounds", inRange, "2 3 4", "Pass MetricsPassed", stays, "each look is within"},
	{"at the bounds", inRange, "1 5 1", "Pass MetricsPassed", stays, "min and max are included"},
	{"just above", inRange, "2 5.0001", "Fail MetricOutOfRange", reverts, "a number beyond max is evidence"},
	{"just below", inRange, "0.9999", "Fail MetricOutOfRange", reverts, "a number below min is evidence"},
	{"negative", inRange, "-3", "Fail MetricOutOfRange", reverts, "a negative number is one"},
	{"zero is a number", inRange, "0", "Fail MetricOutOfRange", reverts, "the server said zero, which is not the same as nothing"},
	{"max only", of(inRange, within(nil, number(5))), "-100 0 5", "Pass MetricsPassed", stays, "no min is no bound"},
	{"min only", of(inRange, within(number(5), nil)), "500 5 6", "Pass MetricsPassed", stays, "no max is no bound"},
	{"bad at the end", inRange, "2 2 9", "Fail MetricOutOfRange", reverts, "looks before the last make no Pass"},
	{"bad after the end", inRange, "2 2 2 9", "Pass MetricsPassed", stays, "what has passed its step is not measured again in it"},
	{"well after a Fail", inRange, "9 2 2 2", "Fail MetricOutOfRange", reverts, "a Fail is final for this version"},
	{"one failure allowed", of(inRange, failures(1)), "9 2 2", "Pass MetricsPassed", stays, "a failed look counts as a look"},
	{"two failures in a row", of(inRange, failures(1)), "9 9", "Fail MetricOutOfRange", reverts, "failureLimit is exceeded"},
	{"two failures apart", of(inRange, failures(1)), "9 2 9", "Fail MetricOutOfRange", reverts, "failureLimit counts all, not those in a row"},
	{"most fail, as allowed", of(inRange, failures(2)), "9 9 2", "Pass MetricsPassed", stays, "the limit says so, and one look was well"},
	{"all fail, as allowed", of(inRange, failures(5)), "9 9 9 9", "open", stays, "failures that are allowed make no Pass: nothing good was seen"},
	{"all fail and more", of(inRange, failures(5)), "9 9 9 9 9 9", "Fail MetricOutOfRange", reverts, "failureLimit is exceeded at last"},
	{"all fail and then one is well", of(inRange, failures(5)), "9 9 9 9 2", "Pass MetricsPassed", stays, "count is reached, the limit is not exceeded, and something was well"},

	{"NaN", inRange, "nan", "Inconclusive MetricsInconclusive pause", stays, "NaN is outside of every range and is no number"},
	{"plus infinite", inRange, "inf", "Inconclusive MetricsInconclusive pause", stays, "a division by nothing that happened"},
	{"minus infinite", inRange, "-inf", "Inconclusive MetricsInconclusive pause", stays, "likewise"},
	{"NaN where only max is given", of(inRange, within(nil, number(5))), "nan nan", "Inconclusive MetricsInconclusive pause", stays, "NaN is not beyond max, and yet no Pass"},
	{"infinite where only min is given", of(inRange, within(number(1), nil)), "inf", "Inconclusive MetricsInconclusive pause", stays, "it is above min, and yet no Pass"},
	{"no result", inRange, "none", "Inconclusive MetricsInconclusive pause", stays, "nothing was said"},
	{"two results", inRange, "two", "Inconclusive MetricsInconclusive pause", stays, "which of them is meant is a guess"},
	{"unclear as often as allowed", of(inRange, unclear(2)), "nan none", "open", stays, "the limit is not exceeded"},
	{"unclear once too often", of(inRange, unclear(2)), "nan 2 none 2 two", "Inconclusive MetricsInconclusive pause", stays, "inconclusiveLimit counts all, not those in a row"},
	{"unclear, then well", of(inRange, unclear(2)), "nan none 2 2 2", "Pass MetricsPassed", stays, "three looks showed something"},
	{"unclear looks are not looks", of(inRange, unclear(5)), "2 nan nan nan 2", "open", stays, "two looks showed something"},
	{"unclear between failures", of(inRange, unclear(5), failures(1)), "9 nan 9", "Fail MetricOutOfRange", reverts, "two numbers were bad; what was unclear does not excuse them"},
	{"unclear, proceed", of(inRange, proceed), "none", "Pass ProceededUnseen", stays, "the spec says so, and the Verdict says that nothing was seen"},
	{"unclear, roll back", of(inRange, rollback), "nan", "Inconclusive MetricsInconclusive rollback", stays, "traffic returns, the version is not blamed"},
	{"failed before it got unclear", of(inRange, rollback), "9 nan", "Fail MetricOutOfRange", reverts, "the number came first"},

	{"an outage", inRange, "down", "Inconclusive MetricsUnavailable pause", stays, "a metrics outage never leads to a rollback"},
	{"an outage as long as allowed", of(inRange, outages(4)), "down down down down", "open", stays, "the limit is not exceeded"},
	{"an outage too long", of(inRange, outages(4)), "down down down down down", "Inconclusive MetricsUnavailable pause", stays, "consecutiveErrorLimit is exceeded"},
	{"an outage for hours", inRange, "down down down down down down down down down down", "Inconclusive MetricsUnavailable pause", stays, "however long, nothing is known of the version"},
	{"outages with answers between", of(inRange, outages(1)), "down 2 down 2 down 2", "Pass MetricsPassed", stays, "the limit is for looks in a row"},
	{"an outage is no look", of(inRange, outages(1)), "2 down 2 down", "open", stays, "two looks showed something"},
	{"an outage goes by", inRange, "down 2 2 2", "Pass MetricsPassed", stays, "it goes on by itself once there are answers"},
	{"an outage goes by, and it was bad", inRange, "down 9", "Fail MetricOutOfRange", reverts, "the answer after the outage is evidence"},
	{"an outage after a failure", of(inRange, outages(1), failures(1)), "9 down 9", "Fail MetricOutOfRange", reverts, "what was seen before is not forgotten"},
	{"unclear within an outage", of(inRange, outages(1), unclear(5)), "down nan down", "open", stays, "the server did answer between"},
	{"an outage, proceed", of(inRange, proceed), "down", "Pass ProceededUnseen", stays, "the spec says so"},
	{"an outage, roll back", of(inRange, rollback), "down", "Inconclusive MetricsUnavailable rollback", stays, "traffic returns, the version is not blamed"},

	{"too early", of(inRange, delay(10*time.Minute)), "early:9 2 2 2", "Pass MetricsPassed", stays, "within initialDelay nothing is of account"},
	{"between two looks", inRange, "2 early:9 2 2", "Pass MetricsPassed", stays, "looking more often must not use up a limit sooner"},
	{"late looks", inRange, "+1h 2 +1h 2 +1h 2", "Pass MetricsPassed", stays, "a late look is one look"},
	{"late and bad", inRange, "2 +3h 9", "Fail MetricOutOfRange", reverts, "a late number is a number"},
	{"nobody looks for a day", of(inRange, outages(1)), "2 +24h 2", "open", stays, "time without looks is neither an outage nor a Pass"},
	{"late and no answer", inRange, "2 +24h down", "Inconclusive MetricsUnavailable pause", stays, "it is one look without answer"},

	{"dry run that fails", of(inRange, dryRun), "9 9 9", "Pass MetricsPassed", stays, "it decides nothing"},
	{"dry run in an outage", of(inRange, dryRun, rollback), "down", "Pass MetricsPassed", stays, "nor does what it does not see"},
	{"dry run of a test", of(errs, dryRun), "e:100/100,1/900", "Pass MetricsPassed", stays, "nor does a test"},

	{"relative: alike", relative, "10/10 7/7", "Pass MetricsPassed", stays, "no difference"},
	{"relative: at the bounds", relative, "110/100 50/100", "Pass MetricsPassed", stays, "bounds are included"},
	{"relative: above", relative, "111/100", "Fail ApartFromBaseline", reverts, "the canary alone is worse"},
	{"relative: below", relative, "49/100", "Fail ApartFromBaseline", reverts, "too little can be wrong, too"},
	{"relative: both rise", relative, "900/890 900/890", "Pass MetricsPassed", stays, "what happens to both is not the version's fault"},
	{"relative: a failure is allowed", of(relative, failures(1)), "200/100 100/100", "Pass MetricsPassed", stays, "failureLimit"},
	{"relative: baseline is zero", relative, "3/0", "Inconclusive MetricsInconclusive pause", stays, "nothing can be a share of it"},
	{"relative: both are zero", relative, "0/0", "Inconclusive MetricsInconclusive pause", stays, "no traffic looks the same"},
	{"relative: baseline is negative", relative, "3/-1", "Inconclusive MetricsInconclusive pause", stays, "shares of it turn around"},
	{"relative: no baseline", relative, "3", "Inconclusive MetricsInconclusive pause", stays, "there is nothing to compare with"},
	{"relative: canary is NaN", relative, "NaN/5", "Inconclusive MetricsInconclusive pause", stays, "no number"},
	{"relative: baseline is NaN", relative, "3/NaN", "Inconclusive MetricsInconclusive pause", stays, "no number"},
	{"relative: baseline is infinite", relative, "3/Inf", "Inconclusive MetricsInconclusive pause", stays, "everything is small beside it"},
	{"relative: canary is infinite", of(relative, apart(nil, number(0.5))), "Inf/3", "Inconclusive MetricsInconclusive pause", stays, "it is above the lower bound, and yet no Pass"},
	{"relative: only above matters", of(relative, apart(number(0), nil)), "1/100 0/100", "Pass MetricsPassed", stays, "no bound below"},
	{"relative: only below matters", of(relative, apart(nil, number(0))), "900/100 100/100", "Pass MetricsPassed", stays, "no bound above"},
	{"relative: an outage", of(relative, rollback), "down", "Inconclusive MetricsUnavailable rollback", stays, "nothing is known"},

	{"errors: alike", errs, "r:0/0,0/0 r:1/100,9/900 r:2/200,18/1800 r:2/300,28/2700", "Pass MetricsPassed", stays, "three increments without a difference"},
	{"errors: counting begins", errs, "r:7/100,9/900", "open", stays, "one reading of a counter says nothing, and uses up no limit"},
	{"errors: bad before counting began", errs, "r:90/100,0/900 r:90/200,0/1800 r:90/300,0/2700 r:90/400,0/3600", "Pass MetricsPassed", stays, "what was counted before is another time's"},
	{"errors: worse", errs, "r:0/0,0/0 r:50/100,9/900", "Fail WorseThanBaseline", reverts, "the test is sure"},
	{"errors: worse, with a failureLimit", of(errs, failures(9)), "r:0/0,0/0 r:50/100,9/900", "Fail WorseThanBaseline", reverts, "a test has its own measure"},
	{"errors: both are as bad", errs, "r:0/0,0/0 r:50/100,450/900 r:99/200,900/1800 r:150/300,1350/2700", "Pass MetricsPassed", stays, "a broken dependency is not the version's fault"},
	{"errors: less than matters", of(errs, tested(func(x *analysis.Test) { x.Effect = 0.2 })), "e:15/100,9/900 e:15/100,9/900 e:15/100,9/900", "Pass MetricsPassed", stays, "effect says what matters"},
	{"errors: not sure enough", of(errs, tested(func(x *analysis.Test) { x.Alpha = 1e-30 })), "e:5/100,9/900", "open", stays, "alpha says how sure it has to be"},
	{"errors: a pod restarted", errs, "r:1/100,9/900 r:2/200,18/1800 r:0/10,27/2700", "Inconclusive MetricsInconclusive pause", stays, "a counter fell: what happened between is not known"},
	{"errors: a pod restarted, as allowed", of(errs, unclear(1)), "r:1/100,9/900 r:0/10,18/1800 r:1/110,27/2700 r:2/210,36/3600 r:2/310,44/4500", "Pass MetricsPassed", stays, "counting goes on after the reset"},
	{"errors: bad ones lost by a restart", of(errs, unclear(1)), "r:0/100,9/900 r:60/60,18/1800 r:60/160,27/2700", "open", stays, "the reset hides them: no evidence is made up"},
	{"errors: stable's pod restarted", errs, "r:0/100,9/900 r:50/200,0/5", "Inconclusive MetricsInconclusive pause", stays, "without a baseline the canary is not worse"},
	{"errors: one of two pods restarted", errs, "r:0/100+0/100,9/900 r:0/200+0/3,18/1800", "Inconclusive MetricsInconclusive pause", stays, "a sum over pods is not known if one is not"},
	{"errors: a pod came", errs, "r:0/0,0/0 r:0/100+80/90,9/900 r:1/200+80/190,18/1800 r:2/300+81/290,27/2700", "Pass MetricsPassed", stays, "what a new pod counted before it was seen first is not new"},
	{"errors: a pod went", errs, "r:0/100+0/100,9/900 r:0/200+_,18/1800", "Inconclusive MetricsInconclusive pause", stays, "what it counted last is not known"},
	{"errors: Prometheus forgot everything", of(errs, unclear(1)), "r:1/100,9/900 r:- r:1/120,9/920", "Inconclusive MetricsInconclusive pause", stays, "two answers say nothing: an empty one, and one without a reading before"},
	{"errors: Prometheus forgot everything, as allowed", of(errs, unclear(2)), "r:1/100,9/900 r:- r:1/120,9/920 r:2/220,18/1820 r:3/320,27/2720 r:3/420,36/3620", "Pass MetricsPassed", stays, "counting goes on"},
	{"errors: the agent restarted", errs, "r:0/0,0/0 r:1/100,9/900 restart r:40/150,9/950 r:41/250,18/1850 r:42/350,27/2750", "Pass MetricsPassed", stays, "counting begins anew, what was found holds"},
	{"errors: the agent restarts again and again", errs, "r:0/0,0/0 restart r:9/9,0/9 restart r:18/18,0/18 restart r:27/27,0/27", "open", stays, "nothing was counted, for nor against"},
	{"errors: a Fail survives the agent", errs, "r:0/0,0/0 r:50/100,9/900 restart r:50/1000,9/9000", "Fail WorseThanBaseline", reverts, "the tally is written down"},
	{"errors: worse during an outage", of(errs, outages(1)), "r:0/0,0/0 down r:50/100,9/900", "Fail WorseThanBaseline", reverts, "counters kept what happened meanwhile"},
	{"errors: no series of bad requests", errs, "r:x/100,9/900 r:x/200,9/900", "Inconclusive MetricsInconclusive pause", stays, "a query that matches nothing looks the same as no error"},
	{"errors: more bad than all", errs, "r:0/0,0/0 r:9/5,0/9", "Inconclusive MetricsInconclusive pause", stays, "it cannot be true"},
	{"errors: rates are no counters", errs, "r:0/0.5,0/0.5 r:0.5/0.75,0/0.75", "Inconclusive MetricsInconclusive pause", stays, "half a request was not counted"},
	{"errors: a counter is NaN", errs, "r:0/0,0/0 r:0/NaN,0/900", "Inconclusive MetricsInconclusive pause", stays, "no number"},
	{"errors: no traffic", errs, "r:5/9,5/9 r:5/9,5/9 r:5/9,5/9 r:5/9,5/9", "Inconclusive InsufficientData pause", stays, "no request, no evidence"},
	{"errors: no traffic on the canary", errs, "e:0/0,9/900 e:0/0,9/900 e:0/0,9/900", "Inconclusive InsufficientData pause", stays, "nobody has tried it"},
	{"errors: no traffic on stable", errs, "e:90/100,0/0 e:90/100,0/0 e:90/100,0/0", "Inconclusive InsufficientData pause", stays, "nobody knows whether stable would have failed alike"},
	{"errors: stable's traffic comes later", errs, "e:50/100,0/0 e:50/100,0/0 e:0/0,9/900", "Fail WorseThanBaseline", reverts, "what waited is judged with it"},
	{"errors: too few", errs, "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90", "Inconclusive InsufficientData pause", stays, "minSamples is not reached"},
	{"errors: too few, more come", errs, "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90 e:0/90,0/810", "Pass MetricsPassed", stays, "it goes on by itself"},
	{"errors: too few, more and bad ones come", errs, "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90 e:80/90,0/810", "Fail WorseThanBaseline", reverts, "a pause does not end judging"},
	{"errors: too few, proceed", of(errs, proceed), "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90", "Pass ProceededUnseen", stays, "the spec says so"},
	{"errors: too few, roll back", of(errs, rollback), "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90", "Inconclusive InsufficientData rollback", stays, "traffic returns, the version is not blamed"},
	{"errors: few and all bad", errs, "e:10/10,0/900", "Fail WorseThanBaseline", reverts, "minSamples is for a Pass; the test is sure already"},
	{"errors: maxSamples", of(errs, tested(func(x *analysis.Test) { x.MaxSamples = 200 })), "e:1/200,9/1800", "Pass MetricsPassed", stays, "what has not shown by then is taken for equal"},
	{"errors: maxSamples, and worse", of(errs, tested(func(x *analysis.Test) { x.MaxSamples = 200 })), "e:90/200,9/1800", "Fail WorseThanBaseline", reverts, "it has shown by then"},

	{"latency: alike", slow, "l:30/100,270/900 l:30/100,270/900 l:31/100,265/900", "Pass MetricsPassed", stays, "no difference at any bound"},
	{"latency: slower", slow, "l:60/100,270/900 l:60/100,270/900", "Fail WorseThanBaseline", reverts, "the test is sure"},
	{"latency: faster", slow, "l:0/100,270/900 l:0/100,270/900 l:0/100,270/900", "Pass MetricsPassed", stays, "one side is tested"},
	{"latency: slower by less than matters", of(slow, tested(func(x *analysis.Test) { x.Effect = 0.5 })), "l:60/100,270/900 l:60/100,270/900 l:60/100,270/900", "Pass MetricsPassed", stays, "effect says what matters"},
	{"latency: other buckets", slow, "l:1/10,9/90 odd", "Inconclusive MetricsInconclusive pause", stays, "histograms with other bounds cannot be compared"},
	{"latency: counts that fall", slow, "l:-5/10,9/90", "Inconclusive MetricsInconclusive pause", stays, "it cannot be true"},
	{"latency: too few", of(slow, proceed), "l:1/10,9/90 l:1/10,9/90 l:1/10,9/90", "Pass ProceededUnseen", stays, "the spec says so"},
	{"latency: a pod restarted", slow, "reset", "Inconclusive MetricsInconclusive pause", stays, "what happened between is not known"},
	{"latency: an outage", slow, "down", "Inconclusive MetricsUnavailable pause", stays, "nothing is known"},
	{"job: completes", trial, "well well", "Pass MetricsPassed", stays, "as many as count asks for have completed"},
	{"job: fails", trial, "well ill", "Fail JobFailed", reverts, "a program that was run against the version says so"},
	{"job: a failure is allowed", of(trial, failures(1)), "ill well", "Pass MetricsPassed", stays, "failureLimit"},
	{"job: runs on", trial, "pending pending +1h pending", "open", stays, "what has not ended is not a look"},
	{"job: runs on, and completes", trial, "pending well pending pending well", "Pass MetricsPassed", stays, "however long each look took"},
	{"job: neither ends nor fails in its time", trial, "pending down", "Inconclusive MetricsUnavailable pause", stays, "a pod that does not start, a node that goes: nothing is known"},
	{"job: a number is no outcome", trial, "2", "Inconclusive MetricsInconclusive pause", stays, "nothing was measured"},

	{"latency: an answer to something else", slow, "e:90/100,0/900", "Inconclusive MetricsInconclusive pause", stays, "nothing was measured"},
}

// TestWhatLooksMean holds, for each row, what the looks make of one metric, and what a Rollout makes of it whose step it
// judges: only a Fail may revert Git.
func TestWhatLooksMean(t *testing.T) {
	names := map[string]bool{}
	for _, row := range meanings {
		t.Run(row.name, func(t *testing.T) {
			if err := row.metric.Validate(); err != nil {
				t.Fatal(err)
			}
			if names[row.name] || row.because == "" {
				t.Fatal("a row needs a name of its own, and a reason")
			}
			names[row.name] = true
			if reverts := strings.HasPrefix(row.want, "Fail"); reverts != row.git {
				t.Fatalf("%s and reverts Git: %v: only a Fail does", row.want, row.git)
			}
			happens := occurrences(t, row.looks)
			if got := finding(remembered(row.metric, happens)); got != row.want {
				t.Errorf("%s: found %s, want %s: %s", row.looks, got, row.want, row.because)
			}
			if got := judgedInAStep(t, row.metric, happens); got != row.want {
				t.Errorf("%s: the Rollout found %s, want %s: %s", row.looks, got, row.want, row.because)
			}
		})
	}
	if len(names) < 70 {
		t.Errorf("%d rows", len(names))
	}
}

// TestNothingIsNeverEvidence tries all short sequences of looks that show nothing: none is a Fail, and none is a Pass
// unless the spec says to proceed.
func TestNothingIsNeverEvidence(t *testing.T) {
	words := strings.Fields("down nan inf none two blank reset")
	looks := occurrences(t, strings.Join(words, " "))
	metrics := []analysis.Metric{inRange, of(inRange, within(nil, number(5)), failures(5)), relative, errs, slow, trial}
	tried := 0
	for _, metric := range metrics {
		for _, then := range []analysis.Insufficient{analysis.Pause, analysis.Proceed, analysis.Rollback} {
			for limit := range 4 {
				metric := of(metric, insufficient(then), outages(limit), unclear(limit))
				for n := range int(math.Pow(float64(len(words)), 4)) {
					var happens []occurrence
					for rest := n; rest > 0; rest /= len(words) {
						happens = append(happens, looks[rest%len(words)])
					}
					found := remembered(metric, happens)
					tried++
					if found.Outcome == "Fail" || found.Outcome == "Pass" && (then != analysis.Proceed || found.Reason != analysis.ReasonProceeded) {
						t.Fatalf("%+v: %+v after %+v", metric, found, happens)
					}
				}
			}
		}
	}
	t.Logf("%d sequences", tried)
}

// TestWhatWatchesFromTheBackground: a metric that has its looks is watched on until the version is stable.
func TestWhatWatchesFromTheBackground(t *testing.T) {
	for _, row := range []meaning{
		{"well", inRange, "2 2 2 2 2 2", "open", stays, "the step waits for a person, and the metric watches on"},
		{"bad after count", inRange, "2 2 2 9", "Fail MetricOutOfRange", reverts, "it watches to the end"},
		{"an outage", inRange, "2 2 2 down", "Inconclusive MetricsUnavailable pause", stays, "nothing is known"},
		{"an outage goes by", inRange, "2 down 2", "open", stays, "it goes on by itself"},
		{"proceeded unseen, then bad", of(inRange, proceed), "down down 9", "Fail MetricOutOfRange", reverts, "to proceed is not to look away"},
		{"proceeded unseen", of(inRange, proceed), "down none", "open", stays, "the spec says so"},
		{"no answer, roll back", of(inRange, rollback), "2 down", "Inconclusive MetricsUnavailable rollback", stays, "the version is not blamed"},
		{"worse after maxSamples", of(errs, tested(func(x *analysis.Test) { x.MaxSamples = 200 })), "e:1/200,9/1800 e:90/200,9/1800", "Fail WorseThanBaseline", reverts, "a test has no end in the background"},
		{"too few so far", errs, "e:0/1,0/9 e:0/1,0/9 e:0/1,0/9 e:0/1,0/9", "open", stays, "there is time until the end"},
		{"dry run", of(inRange, dryRun), "9 9 9", "open", stays, "it decides nothing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := judgedFromTheBackground(t, row.metric, occurrences(t, row.looks)); got != row.want {
				t.Errorf("%s: found %s, want %s: %s", row.looks, got, row.want, row.because)
			}
		})
	}
}
