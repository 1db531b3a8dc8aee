package analysis

import (
	"fmt"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Reasons of Verdicts on metrics.
const (
	ReasonMetricsPassed = "MetricsPassed"       // Pass
	ReasonProceeded     = "ProceededUnseen"     // Pass: the spec says to go on without data
	ReasonOutOfRange    = "MetricOutOfRange"    // Fail
	ReasonApart         = "ApartFromBaseline"   // Fail
	ReasonWorse         = "WorseThanBaseline"   // Fail
	ReasonTrial         = "JobFailed"           // Fail
	ReasonUnavailable   = "MetricsUnavailable"  // Inconclusive, like all below
	ReasonInconclusive  = "MetricsInconclusive" // too many answers that say nothing
	ReasonInsufficient  = "InsufficientData"    // too few requests
	ReasonAborted       = "Aborted"             // by a person
)

// Judge says what is known of the version by m alone.
func (m Metric) Judge(t Tally) Finding {
	switch {
	case m.test() != nil && t.Failed > 0:
		return fail(ReasonWorse, "metric %s: the canary is worse than the baseline: %s", m.Name, t.Said)
	case t.Failed > m.FailureLimit && m.Relative != nil:
		return fail(ReasonApart, "metric %s: %d of %d looks failed, the last: %s", m.Name, t.Failed, t.Passed+t.Failed, t.Said)
	case t.Failed > m.FailureLimit && m.Trial:
		return fail(ReasonTrial, "metric %s: %d of %d Jobs failed, the last: %s", m.Name, t.Failed, t.Passed+t.Failed, t.Said)
	case t.Failed > m.FailureLimit:
		return fail(ReasonOutOfRange, "metric %s: %d of %d looks failed, the last: %s", m.Name, t.Failed, t.Passed+t.Failed, t.Said)
	case t.Errors > m.ConsecutiveErrorLimit:
		return m.insufficient(ReasonUnavailable, "%d looks in a row got no answer: %s", t.Errors, t.Said)
	case t.Inconclusive > m.InconclusiveLimit:
		return m.insufficient(ReasonInconclusive, "%d answers say nothing, the last: %s", t.Inconclusive, t.Said)
	case m.test() != nil && m.compared(t).Done:
		return m.passed(t)
	case t.Passed+t.Failed < m.Count || t.Passed == 0: // failures that are allowed make no Pass on their own
		return Finding{}
	case m.test() != nil && !m.compared(t).Enough:
		return m.insufficient(ReasonInsufficient, "%d requests of the canary and not %d: %s", m.compared(t).Canary.Total, m.test().MinSamples, t.Said)
	default:
		return m.passed(t)
	}
}

func (m Metric) compared(t Tally) Comparison {
	if m.Errors != nil {
		return m.Errors.Proportion(t.Evidence)
	}
	return m.Latency.Latency(t.Latency)
}

func (m Metric) passed(t Tally) Finding {
	return Finding{
		Outcome: v1alpha1.VerdictPass, Reason: ReasonMetricsPassed,
		Message: fmt.Sprintf("metric %s passed %d of %d looks, the last: %s", m.Name, t.Passed, t.Passed+t.Failed, t.Said),
	}
}

func (m Metric) insufficient(reason, format string, args ...any) Finding {
	finding := inconclusive(true, reason, "metric "+m.Name+": "+format, args...)
	finding.Then = m.OnInsufficientData
	if m.OnInsufficientData == Proceed {
		finding.Outcome, finding.Reason = v1alpha1.VerdictPass, ReasonProceeded
		finding.Message += " (" + reason + "; onInsufficientData says to proceed)"
	}
	return finding
}

// JudgeMetrics says what is known of the version by all metrics, whose tallies stand in the same order. One Fail is
// enough, also while others say nothing; then what stops the Rollout comes before what it still waits for. Metrics of a
// dry run decide nothing.
func JudgeMetrics(metrics []Metric, tallies []Tally) Finding {
	var stopped, open, passed Finding
	judged := false
	for i, m := range metrics {
		if m.DryRun {
			continue
		}
		finding := m.Judge(tallies[i])
		switch finding.Outcome {
		case v1alpha1.VerdictFail:
			return finding
		case v1alpha1.VerdictInconclusive:
			if stopped.Outcome == "" || finding.Then == Rollback && stopped.Then != Rollback {
				stopped = finding
			}
		case v1alpha1.VerdictPass:
			if passed.Outcome == "" || finding.Reason == ReasonProceeded {
				passed = finding
			}
		default:
			open, judged = finding, true
		}
	}
	switch {
	case stopped.Outcome != "":
		return stopped
	case judged:
		return open
	case passed.Outcome == "":
		return Finding{Outcome: v1alpha1.VerdictPass, Reason: ReasonMetricsPassed, Message: "no metric decides"}
	}
	return passed
}
