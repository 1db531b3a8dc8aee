package run

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
)

// record is what the Loop knows of a Run. Workers read it and cannot write it.
type record struct {
	Run       builder.Run `json:"run"` // without Jobs
	Pipeline  []byte      `json:"pipeline,omitempty"`
	Committed time.Time   `json:"committed,omitzero"` // of the commit, by its own word
	// Done holds the Jobs that ended, as they ended. What stands here never changes.
	Done map[string]builder.Job `json:"done,omitempty"`
	// Begun says since when a promotion is under way: from then on it may have reached Git.
	Begun  map[string]time.Time `json:"begun,omitempty"`
	Cancel *cancel              `json:"cancel,omitempty"`
	// Told is the state that the Git host was told last.
	Told builder.State `json:"told,omitempty"`
}

// cancel is a person's word that a Run is to end.
type cancel struct {
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

func (c cancel) String() string {
	if c.Reason == "" {
		return "cancelled by " + c.By
	}
	return "cancelled by " + c.By + ": " + c.Reason
}

// claim is what workers say of a Job; its key is RUN/JOB. Its absence says that nobody has claimed the Job.
//
// Pending may be claimed; Running has an owner, who alone changes it while it holds the lease of the attempt; Attesting is
// reported done; Failed is reported failed. How the Job ended is said in the record alone.
type claim struct {
	Job   builder.Job `json:"job"`
	Built []Built     `json:"built,omitempty"`
	// Failures counts attempts that failed, Lost those whose owner or tools failed them.
	Failures int `json:"failures,omitempty"`
	Lost     int `json:"lost,omitempty"`
	// Transient says of a Failed one that not the Job's own commands failed.
	Transient bool `json:"transient,omitempty"`
	// NotBefore is when a Pending one is handed out again.
	NotBefore time.Time `json:"notBefore,omitzero"`
}

func jobKey(run, job string) string { return run + "/" + job }

// leaseKey is of one attempt: what a former owner leaves behind never stands in the way of the next.
func leaseKey(run, job string, attempt int) string { return fmt.Sprintf("%s/%s/%d", run, job, attempt) }

func splitKey(key string) (run, job string) {
	run, rest, _ := strings.Cut(key, "/")
	job, _, _ = strings.Cut(rest, "/")
	return run, job
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return b, nil
}

func decode[T any](r builder.Record) (v T, err error) {
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return v, fmt.Errorf("record %s: %w", r.Key, err)
	}
	return v, nil
}

// deliveredID is that of the Run of a Delivery: the same however often it comes, and sorted by the time of arrival.
func deliveredID(d builder.Delivery) string {
	return runID(d.ReceivedAt, fmt.Sprintf("%q %q %q %q", d.Repo.Name, d.ID, d.Revision.Ref, d.Revision.ID))
}

// freshID is that of a Run that a person asks for.
func freshID(at time.Time) string { return runID(at, rand.Text()) }

func runID(at time.Time, identity string) string {
	sum := sha256.Sum256([]byte(identity))
	at = at.UTC()
	return fmt.Sprintf("%s-%03d-%s", at.Format("20060102-150405"), at.Nanosecond()/int(time.Millisecond), hex.EncodeToString(sum[:5]))
}

// traceOf returns the trace id of a Run: derived, so that a Run that is made twice is made the same.
func traceOf(id string) string {
	sum := sha256.Sum256([]byte("trace of run " + id))
	return hex.EncodeToString(sum[:16])
}

// view joins what the Loop and the workers know to what people see.
func view(r record, p pipeline.Pipeline, claims map[string]claim) builder.Run {
	out := r.Run
	out.Jobs = make([]builder.Job, 0, len(p.Stages))
	for _, s := range p.Stages {
		out.Jobs = append(out.Jobs, viewJob(r, s, claims[s.Name]))
	}
	return out
}

func viewJob(r record, s pipeline.Stage, c claim) builder.Job {
	if done, ok := r.Done[s.Name]; ok {
		return done
	}
	j := blank(s)
	if began, ok := r.Begun[s.Name]; ok {
		j.State, j.Started, j.Attempt = builder.Running, began, 1
		j.Steps[0].State, j.Steps[0].Started = builder.Running, began
	}
	if c.Job.Attempt == 0 {
		return j
	}
	steps := j.Steps
	name, needs := j.Name, j.Needs
	j = c.Job
	j.Name, j.Needs, j.Promotion, j.Finished = name, needs, nil, time.Time{}
	if len(j.Steps) != len(steps) {
		j.Steps = steps
	}
	switch j.State {
	case builder.Pending, builder.Running, builder.Attesting:
	default: // reported failed: whether it is tried again is not decided yet
		j.State = builder.Running
	}
	return j
}

// blank is a Job that nobody has begun.
func blank(s pipeline.Stage) builder.Job {
	j := builder.Job{Name: s.Name, Needs: s.Needs, Steps: make([]builder.Step, len(s.Steps))}
	for i, step := range s.Steps {
		j.Steps[i].Name = stepName(step)
	}
	return j
}

// stepName is what people call a step: its first line may be long.
func stepName(s pipeline.Step) string {
	if r := []rune(s.Name); len(r) > 60 {
		return string(r[:60]) + "..."
	}
	return s.Name
}
