package undo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// RecordSchema names the schema of Record. A field may be added to it; what a field means does not change.
const RecordSchema = "slipway.dev/evidence/v1"

// Record is the evidence of a revert for machines: the trailer Slipway-Evidence of the commit, one line of JSON of at most
// 16 KiB. Git alone gives it back:
//
//	git log -1 --format='%(trailers:key=Slipway-Evidence,valueonly)'
//
// Its verdict is what status.verdict of the Rollout and `slipway rollout status -o json` have (v1alpha1.Verdict): outcome,
// reason, message, at, bundle, setDigest, samples and evidence, which has started, metrics (name, queries, limit, outcome,
// passed, failed, said, since, last, test), trail (at, what, step, weight, header) and pods (name, containers, events).
// What does not fit is left out, first what says least; Omitted says so.
type Record struct {
	Schema      string `json:"schema"` // RecordSchema
	Cluster     string `json:"cluster"`
	App         string `json:"app"`
	Environment string `json:"environment"`
	Failed      string `json:"failed"`  // commit
	Healthy     string `json:"healthy"` // commit
	Trace       string `json:"trace,omitempty"`
	// Verdict on what failed.
	Verdict v1alpha1.Verdict `json:"verdict"`
	// Omitted is true when a part was too long.
	Omitted bool `json:"omitted,omitempty"`
}

// maxRecord bounds a Record in bytes: a trailer is one line, and a commit message is no place to keep logs.
const maxRecord = 16 << 10

func recordOf(f Facts, e Evidence) Record {
	r := Record{
		Schema: RecordSchema, Cluster: f.Cluster, App: f.App, Environment: f.Environment, Failed: string(f.Failed), Healthy: string(f.Healthy),
		Trace: e.Trace, Verdict: *e.Verdict.DeepCopy(),
	}
	r.Verdict.At.Time = r.Verdict.At.UTC()
	return r
}

// String is one line of JSON, of at most 16 KiB. It is empty if even the bare verdict does not fit.
func (r Record) String() string {
	r.Verdict = *r.Verdict.DeepCopy()
	for _, leave := range []func(*v1alpha1.Verdict){
		nil,
		func(v *v1alpha1.Verdict) { each(v, func(e *v1alpha1.Evidence) { dropEvents(e.Pods) }) },
		func(v *v1alpha1.Verdict) {
			each(v, func(e *v1alpha1.Evidence) { e.Metrics = e.Metrics[:min(3, len(e.Metrics))] })
		},
		func(v *v1alpha1.Verdict) { each(v, func(e *v1alpha1.Evidence) { e.Pods = nil }) },
		func(v *v1alpha1.Verdict) { v.Samples = nil },
		func(v *v1alpha1.Verdict) { v.Evidence = nil },
		func(v *v1alpha1.Verdict) { v.Message = v.Message[:min(len(v.Message), 1<<10)] },
	} {
		if leave != nil {
			leave(&r.Verdict)
			r.Omitted = true
		}
		if line := r.line(); len(line) <= maxRecord {
			return line
		}
	}
	return ""
}

func each(v *v1alpha1.Verdict, change func(*v1alpha1.Evidence)) {
	if v.Evidence != nil {
		change(v.Evidence)
	}
}

func dropEvents(pods []v1alpha1.PodEvidence) {
	for i := range pods {
		pods[i].Events = nil
	}
}

// line is JSON without HTML escapes: queries are full of < and &, and people read this, too.
func (r Record) line() string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(r) != nil {
		return ""
	}
	return strings.TrimSpace(out.String())
}

// ParseRecord returns the evidence of a revert commit; false where the message has none that can be read.
func ParseRecord(message string) (*Record, bool) {
	var r Record
	if err := json.Unmarshal([]byte(trailer.Parse(message).Evidence), &r); err != nil || r.Schema != RecordSchema {
		return nil, false
	}
	return &r, true
}

// writeEvidence tells people what was measured, what traffic the version had, and what its pods said.
func writeEvidence(b *strings.Builder, e *v1alpha1.Evidence) {
	if e == nil {
		return
	}
	if len(e.Metrics) > 0 {
		b.WriteString("\nMetrics:\n")
	}
	for i := range e.Metrics {
		for _, line := range MetricLines(&e.Metrics[i]) {
			fmt.Fprintf(b, "  %s\n", oneLine(line))
		}
	}
	if len(e.Trail) > 0 {
		b.WriteString("\nTraffic:\n")
	}
	for i := range e.Trail {
		fmt.Fprintf(b, "  %s\n", oneLine(TrailLine(&e.Trail[i])))
	}
	if len(e.Pods) > 0 {
		b.WriteString("\nPods:\n")
	}
	for i := range e.Pods {
		for _, line := range PodLines(&e.Pods[i]) {
			fmt.Fprintf(b, "  %s\n", oneLine(line))
		}
	}
}

// MetricLines tell of one metric: what it found, what it is held against, and what it asks.
func MetricLines(m *v1alpha1.MetricEvidence) []string {
	state := m.Outcome
	if state == "" {
		state = "open"
	}
	if m.DryRun {
		state += ", dry run"
	}
	lines := []string{fmt.Sprintf("%s (%s): %s", m.Name, state, orNothing(m.Said))}
	looks := fmt.Sprintf("- limit: %s; %d looks passed, %d failed", limitOf(m.Limit), m.Passed, m.Failed)
	if m.Inconclusive+m.Errors > 0 {
		looks += fmt.Sprintf(", %d said nothing, %d without an answer", m.Inconclusive, m.Errors)
	}
	if m.Since != nil && m.Last != nil {
		looks += fmt.Sprintf(" in %s", m.Last.Sub(m.Since.Time).Round(time.Second))
	}
	lines = append(lines, looks)
	if t := m.Test; t != nil {
		lines = append(lines, fmt.Sprintf("- test: e-value %s, p %s, effect %s", t.EValue, t.P, t.Effect))
	}
	for _, query := range m.Queries {
		lines = append(lines, "- asked: "+query)
	}
	return lines
}

func orNothing(said string) string {
	if said == "" {
		return "nothing was measured"
	}
	return said
}

func limitOf(l v1alpha1.MetricLimit) string {
	var parts []string
	for _, part := range []struct{ name, value string }{
		{"at least", l.Min},
		{"at most", l.Max},
		{"above stable by at most", l.Above},
		{"below stable by at most", l.Below},
		{"effect", l.Effect},
		{"alpha", l.Alpha},
	} {
		if part.value != "" {
			parts = append(parts, part.name+" "+part.value)
		}
	}
	if l.MinSamples > 0 {
		parts = append(parts, fmt.Sprintf("%d requests or more", l.MinSamples))
	}
	return strings.Join(parts, ", ")
}

// TrailLine tells of one moment of a course.
func TrailLine(p *v1alpha1.TrailPoint) string {
	line := fmt.Sprintf("%s  step %d  %3d%%  %s", p.At.UTC().Format(time.RFC3339), p.Step+1, p.Weight, p.What)
	if p.Header != nil {
		line += fmt.Sprintf(", and requests with %s: %s", p.Header.Name, p.Header.Value)
	}
	return line
}

// PodLines tell of one pod.
func PodLines(p *v1alpha1.PodEvidence) []string {
	lines := []string{strings.TrimSuffix(p.Name+": "+p.Reason, ": ")}
	for _, c := range p.Containers {
		line := fmt.Sprintf("- container %s, %d restarts", c.Name, c.Restarts)
		if c.Waiting != "" {
			line += ", waits: " + c.Waiting
		}
		if c.ExitCode != nil {
			line += fmt.Sprintf(", ended with exit code %d (%s)", *c.ExitCode, c.Reason)
		}
		lines = append(lines, line)
		for _, last := range c.Last {
			lines = append(lines, "  | "+last)
		}
	}
	for _, e := range p.Events {
		lines = append(lines, fmt.Sprintf("- %s %s (%d times): %s", e.At.UTC().Format(time.RFC3339), e.Reason, max(e.Count, 1), e.Message))
	}
	return lines
}
