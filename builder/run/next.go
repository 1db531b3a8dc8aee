package run

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
)

// facts are all that a decision about one Run rests on.
type facts struct {
	record    record
	pipeline  pipeline.Pipeline
	claims    map[string]claim  // by job
	revisions map[string]uint64 // of the claims
	// orphan says of a Running Job that the lease of its attempt is definitely not held. What is unknown is not in it.
	orphan map[string]bool
	now    time.Time
	lost   int // how often the owner of a Job may get lost
}

// decision is what is to be done next. Equal facts give equal decisions, and carrying one out twice changes nothing:
// verdicts and requeued claims are written by compare-and-swap, the rest may be repeated.
type decision struct {
	verdicts map[string]builder.Job // Jobs that end now
	state    builder.State          // of the Run
	reason   string
	requeue  map[string]claim // what the claims become
	hint     []string         // Jobs that workers may claim
	attest   []string         // Jobs that the Loop attests
	promote  []string         // Jobs that the Loop carries out
	wake     time.Time        // when to decide again; zero if only a change can bring something new
}

const overdue = 2 * time.Minute // how long a worker may take to end a Job whose time is over

// next decides. It never takes back what stands in the record.
func next(f facts) decision {
	d := decision{verdicts: map[string]builder.Job{}, requeue: map[string]claim{}, state: f.record.Run.State, reason: f.record.Run.Reason}
	if d.state.Ended() {
		return d
	}
	for _, s := range f.pipeline.Stages {
		if job, ok := f.verdict(s); ok {
			d.verdicts[s.Name] = job
		}
	}
	for _, name := range f.pipeline.Blocked(f.stateOf(d)) {
		s, _ := f.pipeline.Stage(name)
		job := viewJob(f.record, s, f.claims[name])
		f.end(&job, builder.Skipped, "what it needs did not succeed")
		d.verdicts[name] = job
	}
	// Ready are only those that no verdict and no claim has taken out of Pending, so the others are asked for by themselves.
	ready := f.pipeline.Ready(f.stateOf(d))
	for _, s := range f.pipeline.Stages {
		if !f.stateOf(d)(s.Name).Ended() {
			f.work(&d, s, slices.Contains(ready, s.Name))
		}
	}
	f.finish(&d)
	return d
}

// stateOf returns the state of a Job by the record and by what is decided already. What a worker reported is not the end
// of it: as long as the record has no verdict, a Job that was claimed is Running.
func (f facts) stateOf(d decision) func(stage string) builder.State {
	return func(name string) builder.State {
		if j, ok := d.verdicts[name]; ok {
			return j.State
		}
		if j, ok := f.record.Done[name]; ok {
			return j.State
		}
		if state := f.claims[name].Job.State; state != builder.Pending {
			return builder.Running
		}
		return builder.Pending
	}
}

// verdict returns how a Job ends, if it ends now for a reason of its own.
func (f facts) verdict(s pipeline.Stage) (builder.Job, bool) {
	if f.record.Done[s.Name].State.Ended() {
		return builder.Job{}, false
	}
	c := f.claims[s.Name]
	job := viewJob(f.record, s, c)
	end := func(state builder.State, reason string) (builder.Job, bool) {
		f.end(&job, state, reason)
		return job, true
	}
	if _, begun := f.record.Begun[s.Name]; f.record.Cancel != nil && !begun {
		return end(builder.Cancelled, f.record.Cancel.String())
	}
	switch c.Job.State {
	case builder.Running:
		if f.orphan[s.Name] && c.Lost >= f.lost {
			return end(builder.Failed, fmt.Sprintf("its worker went away %d times, the last one was %s", c.Lost+1, c.Job.Worker))
		}
		if f.now.Sub(c.Job.Started) > s.Timeout+overdue {
			return end(builder.Failed, fmt.Sprintf("timed out after %s, and worker %s did not end it", s.Timeout, c.Job.Worker))
		}
	case builder.Attesting:
		if len(goImages(s)) == 0 && len(c.Built) == 0 { // there is nothing to attest
			job.State, job.Reason, job.Finished = builder.Succeeded, "", f.now
			return job, true
		}
	case builder.Failed:
		if c.Transient && c.Lost >= f.lost || !c.Transient && c.Failures > s.Retries {
			return end(builder.Failed, c.Job.Reason)
		}
	}
	return builder.Job{}, false
}

// end makes job one that has ended without images.
func (f facts) end(job *builder.Job, state builder.State, reason string) {
	job.State, job.Reason, job.Finished, job.Images = state, reason, f.now, nil
	job.Steps = slices.Clone(job.Steps)
	for i := range job.Steps {
		switch step := &job.Steps[i]; step.State {
		case builder.Running:
			step.State, step.Finished = state, f.now
		case builder.Pending:
			step.State = builder.Skipped
		}
	}
}

// work adds what is to be done for a Job that goes on.
func (f facts) work(d *decision, s pipeline.Stage, ready bool) {
	if s.Promotes() {
		if ready {
			d.promote = append(d.promote, s.Name)
		}
		return
	}
	c := f.claims[s.Name]
	switch c.Job.State {
	case builder.Pending:
		if ready {
			f.handOut(d, s.Name, c)
		}
	case builder.Running:
		if f.orphan[s.Name] {
			c.Lost++
			f.again(d, s, c, "worker "+c.Job.Worker+" went away")
		} else {
			d.wakeAt(c.Job.Started.Add(s.Timeout + overdue + time.Second))
		}
	case builder.Attesting:
		d.attest = append(d.attest, s.Name)
	case builder.Failed:
		if c.Transient {
			c.Lost++
			c.NotBefore = f.now.Add(time.Second << min(c.Lost, 5))
		}
		f.again(d, s, c, c.Job.Reason)
	}
}

// again makes a claim one that can be claimed again.
func (f facts) again(d *decision, s pipeline.Stage, c claim, reason string) {
	attempt, worker := c.Job.Attempt, c.Job.Worker
	c.Job = blank(s)
	c.Job.Attempt, c.Job.Worker, c.Job.Reason = attempt, worker, "once more: "+reason
	c.Built, c.Transient = nil, false
	d.requeue[s.Name] = c
	f.handOut(d, s.Name, c)
}

func (f facts) handOut(d *decision, name string, c claim) {
	if f.now.Before(c.NotBefore) {
		d.wakeAt(c.NotBefore)
		return
	}
	d.hint = append(d.hint, name)
}

// finish sets the state of the Run.
func (f facts) finish(d *decision) {
	ended := builder.Succeeded
	var bad []string
	for _, s := range f.pipeline.Stages {
		state := f.stateOf(*d)(s.Name)
		switch {
		case !state.Ended():
			if d.state == builder.Pending && f.started(s.Name) {
				d.state = builder.Running
			}
			ended = builder.Pending
		case state == builder.Failed:
			bad = append(bad, s.Name)
		}
	}
	switch {
	case ended == builder.Pending:
		if d.state == builder.Pending && len(f.record.Done)+len(d.verdicts) > 0 {
			d.state = builder.Running
		}
	case len(bad) > 0:
		d.state, d.reason = builder.Failed, "failed: "+strings.Join(bad, ", ")
	case f.cancelled(*d):
		d.state, d.reason = builder.Cancelled, f.record.Cancel.String()
	default:
		d.state, d.reason = builder.Succeeded, ""
	}
}

func (f facts) started(name string) bool {
	_, begun := f.record.Begun[name]
	steps := f.claims[name].Job.Steps
	return begun || len(steps) > 0 && !steps[0].Started.IsZero()
}

// cancelled reports whether the cancellation changed something: a Run whose last Job succeeded meanwhile did succeed.
func (f facts) cancelled(d decision) bool {
	return f.record.Cancel != nil && slices.ContainsFunc(f.pipeline.Stages, func(s pipeline.Stage) bool { return f.stateOf(d)(s.Name) == builder.Cancelled })
}

func (d *decision) wakeAt(t time.Time) {
	if d.wake.IsZero() || t.Before(d.wake) {
		d.wake = t
	}
}

// imageFor returns the attested image that a promotion puts into its Environment: that of the stage which the step names,
// else of the only one before it that builds any.
func imageFor(r record, p pipeline.Pipeline, s pipeline.Stage) (builder.Image, error) {
	from := s.Steps[0].With["image"]
	var found []builder.Image
	for _, name := range p.Images(s.Name) {
		if done := r.Done[name]; done.State == builder.Succeeded && (from == "" || from == name) {
			found = append(found, done.Images...)
		}
	}
	if len(found) != 1 {
		return builder.Image{}, fmt.Errorf("stage %s promotes one image, and there are %d: name the stage with `image:`, and build each image in a stage of its own", s.Name, len(found))
	}
	return found[0], nil
}

// accepted returns the images of a report that the stage may have built: their repositories are those of its steps, their
// Revision is the Run's. Anything else a worker has no business with.
func accepted(r record, s pipeline.Stage, c claim) ([]builder.Image, error) {
	allowed := map[string]bool{}
	for _, step := range s.Steps {
		if step.Uses == pipeline.GoImage {
			allowed[step.With["repository"]] = true
		}
	}
	var images []builder.Image
	for _, b := range c.Built {
		i := b.Image
		if !allowed[i.Repository] {
			return nil, fmt.Errorf("image %s: no step of stage %s builds for %s", i.Reference(), s.Name, i.Repository)
		}
		if !isDigest(i.Digest) {
			return nil, fmt.Errorf("image %s: %q is no digest", i.Repository, i.Digest)
		}
		i.Revision = r.Run.Revision
		images = append(images, i)
	}
	if len(images) != len(goImages(s)) {
		return nil, fmt.Errorf("stage %s builds %d images, and its worker reported %d", s.Name, len(goImages(s)), len(images))
	}
	return images, nil
}

func goImages(s pipeline.Stage) (steps []pipeline.Step) {
	for _, step := range s.Steps {
		if step.Uses == pipeline.GoImage {
			steps = append(steps, step)
		}
	}
	return steps
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}
