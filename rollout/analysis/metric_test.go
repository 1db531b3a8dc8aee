package analysis_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

func number(x float64) *float64 { return &x }

// Metrics of the table below.
var (
	inRange  = analysis.Metric{Name: "load", Range: &analysis.Range{Min: number(1), Max: number(5)}, Interval: time.Minute, Count: 3}
	relative = analysis.Metric{Name: "cost", Relative: &analysis.Relative{Above: number(0.1), Below: number(0.5)}, Interval: time.Minute, Count: 2}
	errs     = analysis.Metric{Name: "errors", Errors: &analysis.Test{Alpha: 0.05, Effect: 0.005, MinSamples: 100}, Interval: time.Minute, Count: 3}
	trial    = analysis.Metric{Name: "smoke", Trial: true, Interval: time.Minute, Count: 2}
	slow     = analysis.Metric{Name: "latency", Latency: &analysis.Test{Alpha: 0.05, Effect: 0.01, MinSamples: 100}, Interval: time.Minute, Count: 3}
)

func with(m analysis.Metric, change func(*analysis.Metric)) analysis.Metric {
	change(&m)
	return m
}

func failures(n int) func(*analysis.Metric) { return func(m *analysis.Metric) { m.FailureLimit = n } }

func outages(n int) func(*analysis.Metric) {
	return func(m *analysis.Metric) { m.ConsecutiveErrorLimit = n }
}

func unclear(n int) func(*analysis.Metric) {
	return func(m *analysis.Metric) { m.InconclusiveLimit = n }
}

func insufficient(then analysis.Insufficient) func(*analysis.Metric) {
	return func(m *analysis.Metric) { m.OnInsufficientData = then }
}

// TestJudgeOfOneMetric tells looks, a word each, and what is found after the last:
//
//	4          the value of a query; 4/5 canary and baseline; nan, inf, none, two are what it sounds like
//	down       no answer; reset: a counter was reset; blank: an answer without content
//	e:3/100,9/900   bad requests of the canary and of the baseline, with how many there were
//	l:3/100,9/900   those slower than 0.25 s
//	odd        a histogram with other buckets than before
//	well, ill  how a trial ended; pending: it has not
//	again      the same as the last look, before it is due
func TestJudgeOfOneMetric(t *testing.T) {
	for name, c := range map[string]struct {
		metric analysis.Metric
		looks  string
		want   string // outcome reason, then, and a part of the message
	}{
		"range: nothing seen yet":               {inRange, "", "open"},
		"range: not often enough":               {inRange, "2 3", "open"},
		"range: within":                         {inRange, "2 3 4", "Pass MetricsPassed: passed 3 of 3"},
		"range: bounds are within":              {inRange, "1 5 1", "Pass MetricsPassed"},
		"range: above":                          {inRange, "2 5.1", "Fail MetricOutOfRange: 1 of 2 looks failed, the last: 5.1"},
		"range: below":                          {inRange, "0.9", "Fail MetricOutOfRange: 0.9"},
		"range: negative is a number":           {inRange, "-3", "Fail MetricOutOfRange: -3"},
		"range: only max, far below":            {with(inRange, func(m *analysis.Metric) { m.Range = &analysis.Range{Max: number(5)} }), "-100 0 5", "Pass MetricsPassed"},
		"range: only min, far above":            {with(inRange, func(m *analysis.Metric) { m.Range = &analysis.Range{Min: number(5)} }), "500 5 6", "Pass MetricsPassed"},
		"range: one failure is allowed":         {with(inRange, failures(1)), "9 2 3", "Pass MetricsPassed: passed 2 of 3"},
		"range: two are not":                    {with(inRange, failures(1)), "9 2 9", "Fail MetricOutOfRange: 2 of 3"},
		"range: failures need not be in a row":  {with(inRange, failures(1)), "9 2 0", "Fail MetricOutOfRange"},
		"range: failed stays failed":            {inRange, "9 2 2 2 2", "Fail MetricOutOfRange: 1 of 1"},
		"range: passed stays passed":            {inRange, "2 2 2 9", "Pass MetricsPassed: 3 of 3"},
		"range: passed needs no server":         {inRange, "2 2 2 down down", "Pass MetricsPassed: 3 of 3"},
		"range: a look too soon does not count": {inRange, "2 2 again again", "open"},
		"range: nor does a bad one":             {with(inRange, failures(1)), "9 again", "open"},

		"no answer":                                 {inRange, "down", "Inconclusive MetricsUnavailable pause: 1 looks in a row"},
		"no answer, some allowed":                   {with(inRange, outages(2)), "down down", "open"},
		"no answer too often":                       {with(inRange, outages(2)), "down down down", "Inconclusive MetricsUnavailable pause: connection refused"},
		"an answer ends the row":                    {with(inRange, outages(1)), "down 2 down 2 down 2", "Pass MetricsPassed: 3 of 3"},
		"an outage does not count as a look":        {with(inRange, outages(1)), "2 down 2 down", "open"},
		"an outage at the end goes by":              {inRange, "2 2 down 2", "Pass MetricsPassed"},
		"an outage is over":                         {inRange, "down 2", "open"},
		"an outage never fails, whatever limit":     {with(inRange, failures(0)), "down down down down down", "Inconclusive MetricsUnavailable pause"},
		"a failure counts over an outage":           {with(inRange, outages(5)), "9 down down", "Fail MetricOutOfRange"},
		"an outage hides no failures before":        {with(inRange, failures(1)), "9 down 9", "Fail MetricOutOfRange: 2 of 2"},
		"no answer, proceed":                        {with(inRange, insufficient(analysis.Proceed)), "down", "Pass ProceededUnseen: onInsufficientData says to proceed"},
		"no answer, roll back, and no Fail":         {with(inRange, insufficient(analysis.Rollback)), "down", "Inconclusive MetricsUnavailable rollback"},
		"an unclear answer ends a row of outages":   {with(with(inRange, outages(1)), unclear(5)), "down nan down", "open"},
		"an unclear answer does not reset failures": {with(with(inRange, unclear(5)), failures(1)), "9 nan 9", "Fail MetricOutOfRange"},

		"NaN":                        {inRange, "nan", "Inconclusive MetricsInconclusive pause: NaN"},
		"infinite":                   {inRange, "inf", "Inconclusive MetricsInconclusive pause: +Inf"},
		"no result":                  {inRange, "none", "Inconclusive MetricsInconclusive pause: has no result"},
		"two results":                {inRange, "two", "Inconclusive MetricsInconclusive pause: has 2 results"},
		"an answer without content":  {errs, "blank", "Inconclusive MetricsInconclusive pause: nothing was measured"},
		"unclear, some allowed":      {with(inRange, unclear(2)), "nan none", "open"},
		"unclear too often in all":   {with(inRange, unclear(2)), "nan 2 none 2 two", "Inconclusive MetricsInconclusive pause: 3 answers"},
		"unclear looks do not count": {with(inRange, unclear(5)), "2 nan nan nan 2", "open"},
		"unclear, then enough":       {with(inRange, unclear(1)), "nan 2 2 2", "Pass MetricsPassed: 3 of 3"},
		"unclear, proceed":           {with(inRange, insufficient(analysis.Proceed)), "none", "Pass ProceededUnseen"},
		"unclear, roll back":         {with(inRange, insufficient(analysis.Rollback)), "none", "Inconclusive MetricsInconclusive rollback"},

		"relative: equal":                  {relative, "10/10 7/7", "Pass MetricsPassed: (+0.0%)"},
		"relative: at the bound":           {relative, "110/100 50/100", "Pass MetricsPassed: (-50.0%)"},
		"relative: above":                  {relative, "111/100", "Fail ApartFromBaseline: canary 111, baseline 100 (+11.0%)"},
		"relative: below":                  {relative, "49/100", "Fail ApartFromBaseline: (-51.0%)"},
		"relative: only above is bounded":  {with(relative, func(m *analysis.Metric) { m.Relative = &analysis.Relative{Above: number(0)} }), "1/100 0/100", "Pass MetricsPassed"},
		"relative: only below is bounded":  {with(relative, func(m *analysis.Metric) { m.Relative = &analysis.Relative{Below: number(0)} }), "900/100 100/100", "Pass MetricsPassed"},
		"relative: a failure is allowed":   {with(relative, failures(1)), "200/100 100/100", "Pass MetricsPassed: 1 of 2"},
		"relative: the baseline fails too": {relative, "200/190 200/190", "Pass MetricsPassed"},
		"relative: nothing as baseline":    {relative, "3/0", "Inconclusive MetricsInconclusive pause: nothing can be a share of it"},
		"relative: negative baseline":      {relative, "3/-1", "Inconclusive MetricsInconclusive pause"},
		"relative: no baseline":            {relative, "3", "Inconclusive MetricsInconclusive pause: the baseline's query has no result"},
		"relative: no canary":              {relative, "none", "Inconclusive MetricsInconclusive pause: the canary's query has no result"},
		"relative: baseline not a number":  {relative, "3/NaN", "Inconclusive MetricsInconclusive pause: the baseline's query is NaN"},

		"errors: alike":                       {errs, "e:1/100,9/900 e:1/100,9/900 e:0/100,10/900", "Pass MetricsPassed: passed 3 of 3"},
		"errors: none at all":                 {errs, "e:0/100,0/900 e:0/100,0/900 e:0/100,0/900", "Pass MetricsPassed"},
		"errors: better":                      {errs, "e:0/100,90/900 e:0/100,90/900 e:0/100,90/900", "Pass MetricsPassed"},
		"errors: both are down":               {errs, "e:100/100,900/900 e:100/100,900/900 e:100/100,900/900", "Pass MetricsPassed"},
		"errors: all of the canary":           {errs, "e:100/100,1/900", "Fail WorseThanBaseline: canary 100 of 100 bad (100%), baseline 1 of 900"},
		"errors: no failure limit for a test": {with(errs, failures(9)), "e:100/100,1/900", "Fail WorseThanBaseline"},
		"errors: plainly worse":               {errs, "e:5/100,9/900 e:9/100,9/900 e:8/100,9/900", "Fail WorseThanBaseline"},
		"errors: worse by less than matters":  {with(errs, func(m *analysis.Metric) { m.Errors = &analysis.Test{Alpha: 0.05, Effect: 0.2, MinSamples: 1} }), "e:15/100,9/900 e:15/100,9/900 e:15/100,9/900", "Pass MetricsPassed"},
		"errors: one bad request of two":      {errs, "e:1/2,0/18", "open"},
		"errors: too few for a Pass":          {errs, "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90", "Inconclusive InsufficientData pause: 30 requests of the canary and not 100"},
		"errors: too few, proceed":            {with(errs, insufficient(analysis.Proceed)), "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90", "Pass ProceededUnseen"},
		"errors: too few, roll back":          {with(errs, insufficient(analysis.Rollback)), "e:0/1,0/9 e:0/1,0/9 e:0/1,0/9", "Inconclusive InsufficientData rollback"},
		"errors: few, and more come":          {errs, "e:0/10,0/90 e:0/10,0/90 e:0/10,0/90 e:0/90,0/810", "Pass MetricsPassed"},
		"errors: no traffic":                  {errs, "e:0/0,0/0 e:0/0,0/0 e:0/0,0/0", "Inconclusive InsufficientData pause: no requests of both versions yet"},
		"errors: no traffic on the baseline":  {errs, "e:90/100,0/0 e:90/100,0/0 e:90/100,0/0", "Inconclusive InsufficientData pause"},
		"errors: baseline comes later":        {errs, "e:50/100,0/0 e:50/100,0/0 e:0/0,9/900", "Fail WorseThanBaseline: canary 100 of 200"},
		"errors: reset":                       {errs, "e:0/100,0/900 reset", "Inconclusive MetricsInconclusive pause: counter x went from 9 to 1"},
		"errors: reset, allowed":              {with(errs, unclear(1)), "e:0/100,0/900 reset e:0/100,0/900 e:0/100,0/900", "Pass MetricsPassed"},
		"errors: reset does not excuse":       {with(errs, unclear(1)), "reset e:100/100,0/900", "Fail WorseThanBaseline"},
		"errors: more bad than all":           {errs, "e:7/5,0/9", "Inconclusive MetricsInconclusive pause: 7 bad requests of 5"},
		"errors: negative":                    {errs, "e:-7/5,0/9", "Inconclusive MetricsInconclusive pause"},
		"errors: enough seen, no more looks":  {with(errs, func(m *analysis.Metric) { m.Errors = &analysis.Test{Alpha: 0.05, MinSamples: 1, MaxSamples: 200} }), "e:1/200,9/1800", "Pass MetricsPassed"},
		"errors: stay failed":                 {errs, "e:100/100,1/900 e:0/9000,1/9000", "Fail WorseThanBaseline: 100 of 100"},

		"latency: alike":            {slow, "l:30/100,270/900 l:30/100,270/900 l:31/100,265/900", "Pass MetricsPassed"},
		"latency: slower":           {slow, "l:60/100,270/900 l:60/100,270/900", "Fail WorseThanBaseline: over 0.25s"},
		"latency: faster":           {slow, "l:0/100,270/900 l:0/100,270/900 l:0/100,270/900", "Pass MetricsPassed"},
		"latency: other buckets":    {slow, "l:1/10,9/90 odd", "Inconclusive MetricsInconclusive pause: buckets differ"},
		"latency: too few":          {slow, "l:1/10,9/90 l:1/10,9/90 l:1/10,9/90", "Inconclusive InsufficientData pause"},
		"latency: outage":           {slow, "down", "Inconclusive MetricsUnavailable pause"},
		"latency: reset":            {slow, "reset", "Inconclusive MetricsInconclusive pause"},
		"latency: impossible":       {slow, "l:-5/10,9/90", "Inconclusive MetricsInconclusive pause: counts fall"},
		"latency: counts mixed in":  {slow, "e:1/10,9/90", "Inconclusive MetricsInconclusive pause: nothing was measured"},
		"latency: slower than ever": {slow, "l:100/100,0/900", "Fail WorseThanBaseline"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.metric.Validate(); err != nil {
				t.Fatal(err)
			}
			found := c.metric.Judge(tallied(t, c.metric, c.looks))
			want, part, _ := strings.Cut(c.want, ": ")
			if got := finding(found); got != want || !strings.Contains(found.Message, part) {
				t.Errorf("%s: found %s: %q, want %s", c.looks, got, found.Message, c.want)
			}
		})
	}
}

func finding(f analysis.Finding) string {
	switch f.Outcome {
	case "":
		return "open"
	case "Inconclusive":
		return f.Outcome + " " + f.Reason + " " + [...]string{"pause", "proceed", "rollback"}[f.Then]
	}
	return f.Outcome + " " + f.Reason
}

func tallied(t *testing.T, m analysis.Metric, looks string) analysis.Tally {
	t.Helper()
	tally := analysis.Tally{Started: epoch}
	var last analysis.Look
	for word := range strings.FieldsSeq(looks) {
		if word == "again" {
			again := last
			again.At = last.At.Add(m.Interval / 2)
			if taken := m.Take(tally, again); taken.Last != tally.Last {
				t.Fatalf("a look %s after the last was taken", m.Interval/2)
			}
			continue
		}
		last = lookOf(t, word)
		last.At = m.Due(tally)
		tally = m.Take(tally, last)
	}
	return tally
}

func lookOf(t *testing.T, word string) analysis.Look {
	t.Helper()
	kind, pair, _ := strings.Cut(word, ":")
	switch kind {
	case "down":
		return analysis.Look{Unavailable: "connection refused"}
	case "reset":
		return analysis.Look{Gap: &analysis.Gap{Reason: analysis.ReasonReset, Message: "counter x went from 9 to 1"}}
	case "well", "ill":
		return analysis.Look{Trial: &analysis.Trial{Well: kind == "well", Said: "Job x is " + kind}}
	case "pending":
		return analysis.Look{Pending: true}
	case "none", "blank":
		return analysis.Look{}
	case "nan":
		return analysis.Look{Canary: []float64{math.NaN()}}
	case "inf":
		return analysis.Look{Canary: []float64{math.Inf(1)}}
	case "two":
		return analysis.Look{Canary: []float64{2, 2}}
	case "odd":
		odd := analysis.Buckets{Bounds: []float64{0.1}, Counts: []int64{1, 1}}
		return analysis.Look{Latency: &analysis.Pair[analysis.Buckets]{Canary: odd, Baseline: odd}}
	case "e":
		canary, baseline, _ := strings.Cut(pair, ",")
		return analysis.Look{Errors: &analysis.Pair[analysis.Counts]{Canary: countsOf(t, canary), Baseline: countsOf(t, baseline)}}
	case "l":
		canary, baseline, _ := strings.Cut(pair, ",")
		return analysis.Look{Latency: &analysis.Pair[analysis.Buckets]{Canary: bucketsOf(t, canary), Baseline: bucketsOf(t, baseline)}}
	}
	var l analysis.Look
	canary, baseline, both := strings.Cut(word, "/")
	l.Canary = []float64{numberOf(t, canary)}
	if both {
		l.Baseline = []float64{numberOf(t, baseline)}
	}
	return l
}

func numberOf(t *testing.T, word string) float64 {
	t.Helper()
	value, err := strconv.ParseFloat(word, 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func countsOf(t *testing.T, word string) (c analysis.Counts) {
	t.Helper()
	if _, err := fmt.Sscanf(word, "%d/%d", &c.Bad, &c.Total); err != nil {
		t.Fatalf("%q: %v", word, err)
	}
	return c
}

func bucketsOf(t *testing.T, word string) analysis.Buckets {
	t.Helper()
	c := countsOf(t, word)
	return analysis.Buckets{Bounds: []float64{0.1, 0.25}, Counts: []int64{(c.Total - c.Bad) / 2, c.Total - c.Bad, c.Total}}
}

func TestInitialDelay(t *testing.T) {
	m := with(inRange, func(m *analysis.Metric) { m.InitialDelay = 3 * time.Minute })
	tally := analysis.Tally{Started: epoch}
	if due := m.Due(tally); due != epoch.Add(3*time.Minute) {
		t.Errorf("due at %s", due)
	}
	if early := m.Take(tally, analysis.Look{At: epoch.Add(2 * time.Minute), Canary: []float64{9}}); early.Failed != 0 {
		t.Errorf("a look within the delay counts: %+v", early)
	}
	tally = m.Take(tally, analysis.Look{At: epoch.Add(3 * time.Minute), Canary: []float64{2}})
	if due := m.Due(tally); tally.Passed != 1 || due != epoch.Add(4*time.Minute) {
		t.Errorf("%+v, due at %s", tally, due)
	}
}

// TestJudgeOfSeveralMetrics has one word of looks for each of range, relative and errors.
func TestJudgeOfSeveralMetrics(t *testing.T) {
	dry := func(m *analysis.Metric) { m.DryRun = true }
	for name, c := range map[string]struct {
		metrics []analysis.Metric
		looks   []string
		want    string
	}{
		"no metric":                          {nil, nil, "Pass MetricsPassed"},
		"all pass":                           {[]analysis.Metric{inRange, relative}, []string{"2 2 2", "1/1 1/1"}, "Pass MetricsPassed"},
		"one is open":                        {[]analysis.Metric{inRange, relative}, []string{"2 2 2", "1/1"}, "open"},
		"one fails, one is open":             {[]analysis.Metric{inRange, relative}, []string{"2", "9/1"}, "Fail ApartFromBaseline"},
		"one fails, one has no data":         {[]analysis.Metric{inRange, relative}, []string{"down", "9/1"}, "Fail ApartFromBaseline"},
		"one has no data, one passes":        {[]analysis.Metric{inRange, relative}, []string{"2 2 2", "down"}, "Inconclusive MetricsUnavailable pause"},
		"no data comes before open":          {[]analysis.Metric{inRange, relative}, []string{"2", "none"}, "Inconclusive MetricsInconclusive pause"},
		"rollback comes before pause":        {[]analysis.Metric{inRange, with(relative, insufficient(analysis.Rollback))}, []string{"down", "none"}, "Inconclusive MetricsInconclusive rollback"},
		"proceed waits for the others":       {[]analysis.Metric{with(inRange, insufficient(analysis.Proceed)), relative}, []string{"down", "1/1"}, "open"},
		"proceed is said":                    {[]analysis.Metric{with(inRange, insufficient(analysis.Proceed)), relative}, []string{"down", "1/1 1/1"}, "Pass ProceededUnseen"},
		"a dry run fails nothing":            {[]analysis.Metric{with(inRange, dry), relative}, []string{"9 9 9", "1/1 1/1"}, "Pass MetricsPassed"},
		"a dry run is not waited for":        {[]analysis.Metric{with(inRange, dry), relative}, []string{"", "1/1 1/1"}, "Pass MetricsPassed"},
		"a dry run passes nothing that open": {[]analysis.Metric{with(inRange, dry), relative}, []string{"2 2 2", "1/1"}, "open"},
		"a dry run without data":             {[]analysis.Metric{with(inRange, dry), relative}, []string{"down", "1/1 1/1"}, "Pass MetricsPassed"},
		"only a dry run":                     {[]analysis.Metric{with(inRange, dry)}, []string{"9"}, "Pass MetricsPassed"},
	} {
		t.Run(name, func(t *testing.T) {
			var tallies []analysis.Tally
			for i, m := range c.metrics {
				tallies = append(tallies, tallied(t, m, c.looks[i]))
			}
			if got := finding(analysis.JudgeMetrics(c.metrics, tallies)); got != c.want {
				t.Errorf("found %s, want %s", got, c.want)
			}
		})
	}
}

func TestMetricsThatMakeNoSense(t *testing.T) {
	for want, m := range map[string]analysis.Metric{
		"has no name":                  with(inRange, func(m *analysis.Metric) { m.Name = "" }),
		"judged in 0 ways":             with(inRange, func(m *analysis.Metric) { m.Range = nil }),
		"judged in 2 ways":             with(inRange, func(m *analysis.Metric) { m.Errors = errs.Errors }),
		"range without a bound":        with(inRange, func(m *analysis.Metric) { m.Range = &analysis.Range{} }),
		"min must not be above max":    with(inRange, func(m *analysis.Metric) { m.Range = &analysis.Range{Min: number(2), Max: number(1)} }),
		"relative without a bound":     with(relative, func(m *analysis.Metric) { m.Relative = &analysis.Relative{} }),
		"must not be negative":         with(relative, func(m *analysis.Metric) { m.Relative = &analysis.Relative{Above: number(-1)} }),
		"count 0":                      with(inRange, func(m *analysis.Metric) { m.Count = 0 }),
		"interval must be positive":    with(inRange, func(m *analysis.Metric) { m.Interval = 0 }),
		"limits must not be negative":  with(inRange, failures(-1)),
		"alpha 0":                      with(errs, func(m *analysis.Metric) { m.Errors = &analysis.Test{MinSamples: 1} }),
		"minimal effect NaN":           with(errs, func(m *analysis.Metric) { m.Errors = &analysis.Test{Alpha: 0.1, Effect: math.NaN(), MinSamples: 1} }),
		"minimum samples 0":            with(slow, func(m *analysis.Metric) { m.Latency = &analysis.Test{Alpha: 0.1} }),
		"must not be less than":        with(slow, func(m *analysis.Metric) { m.Latency = &analysis.Test{Alpha: 0.1, MinSamples: 9, MaxSamples: 8} }),
		"min must not be above max (2": with(inRange, func(m *analysis.Metric) { m.Range = &analysis.Range{Min: number(math.NaN()), Max: number(1)} }),
	} {
		want, _, _ = strings.Cut(want, " (2")
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", m, err, want)
		}
	}
}
