package run

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
	"github.com/slipway-cd/slipway/gitsource"
)

// wide has a diamond, an image, a promotion, and a stage that stands before what it needs.
const wide = `name: wide
stages:
  - {name: late, needs: [left, right], steps: [{run: x}]}
  - {name: first, retries: 1, steps: [{run: x}]}
  - {name: left, needs: [first], steps: [{run: x}]}
  - {name: right, needs: [first], steps: [{uses: checkout}, {uses: go-image, with: {repository: r.example/shop}}]}
  - {name: dev, needs: [late, right], environment: dev, steps: [{uses: promote, with: {app: shop}}]}
`

func parsed(t testing.TB, text string) pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// said writes a decision as one line.
func said(d decision) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(d.verdicts)) {
		out = append(out, name+"="+d.verdicts[name].State.String())
	}
	for _, list := range []struct {
		what  string
		names []string
	}{{"hint", d.hint}, {"attest", d.attest}, {"promote", d.promote}, {"requeue", slices.Sorted(maps.Keys(d.requeue))}} {
		if len(list.names) > 0 {
			out = append(out, list.what+" "+strings.Join(list.names, ","))
		}
	}
	return strings.Join(append(out, d.state.String()), "; ")
}

func TestNext(t *testing.T) {
	t.Parallel()
	claims := func(states map[string]builder.State) map[string]claim {
		out := map[string]claim{}
		for name, s := range states {
			out[name] = claim{Job: builder.Job{State: s, Attempt: 1, Worker: "w", Started: noon.Add(-time.Minute), Steps: []builder.Step{{State: builder.Running, Started: noon}}}}
		}
		return out
	}
	done := func(names ...string) map[string]builder.Job {
		out := map[string]builder.Job{}
		for _, name := range names {
			out[name] = builder.Job{Name: name, State: builder.Succeeded}
		}
		return out
	}
	with := func(c map[string]claim, name string, change func(*claim)) map[string]claim {
		v := c[name]
		change(&v)
		c[name] = v
		return c
	}
	for name, c := range map[string]struct {
		f    facts
		want string
	}{
		"nothing has begun":   {facts{}, "hint first; Pending"},
		"the first one runs":  {facts{claims: claims(map[string]builder.State{"first": builder.Running})}, "Running"},
		"it is reported done": {facts{claims: claims(map[string]builder.State{"first": builder.Attesting})}, "first=Succeeded; hint left,right; Running"},
		"both branches begin": {facts{record: record{Done: done("first")}}, "hint left,right; Running"},
		"a report of images is not the end of it": {
			facts{record: record{Done: done("first")}, claims: claims(map[string]builder.State{"left": builder.Attesting, "right": builder.Attesting})},
			"left=Succeeded; attest right; Running",
		},
		"only the promotion is left": {facts{record: record{Done: done("first", "left", "right", "late")}}, "promote dev; Running"},
		"all is done":                {facts{record: record{Done: done("first", "left", "right", "late", "dev")}}, "Succeeded"},
		"it failed and may again":    {facts{claims: with(claims(map[string]builder.State{"first": builder.Failed}), "first", func(c *claim) { c.Failures = 1 })}, "hint first; requeue first; Running"},
		"it failed for good": {
			facts{claims: with(claims(map[string]builder.State{"first": builder.Failed}), "first", func(c *claim) { c.Failures = 2 })},
			"dev=Skipped; first=Failed; late=Skipped; left=Skipped; right=Skipped; Failed",
		},
		"one branch failed, the other goes on": {
			facts{record: record{Done: done("first")}, claims: with(claims(map[string]builder.State{"left": builder.Failed, "right": builder.Running}), "left", func(c *claim) { c.Failures = 1 })},
			"dev=Skipped; late=Skipped; left=Failed; Running",
		},
		"its tools failed: later": {
			facts{claims: with(claims(map[string]builder.State{"first": builder.Failed}), "first", func(c *claim) { c.Transient = true })},
			"requeue first; Running",
		},
		"not yet again": {
			facts{claims: with(claims(map[string]builder.State{"first": builder.Pending}), "first", func(c *claim) { c.NotBefore = noon.Add(time.Second) })},
			"Running",
		},
		"its worker went away": {facts{claims: claims(map[string]builder.State{"first": builder.Running}), orphan: map[string]bool{"first": true}}, "hint first; requeue first; Running"},
		"its workers keep going away": {
			facts{claims: with(claims(map[string]builder.State{"first": builder.Running}), "first", func(c *claim) { c.Lost = 2 }), orphan: map[string]bool{"first": true}},
			"dev=Skipped; first=Failed; late=Skipped; left=Skipped; right=Skipped; Failed",
		},
		"its worker does not see the time": {
			facts{claims: with(claims(map[string]builder.State{"first": builder.Running}), "first", func(c *claim) { c.Job.Started = noon.Add(-33 * time.Minute) })},
			"dev=Skipped; first=Failed; late=Skipped; left=Skipped; right=Skipped; Failed",
		},
		"cancelled": {
			facts{record: record{Cancel: &cancel{By: "ann"}, Done: done("first")}, claims: claims(map[string]builder.State{"left": builder.Running})},
			"dev=Cancelled; late=Cancelled; left=Cancelled; right=Cancelled; Cancelled",
		},
		"cancelled while it is promoted: that may be in Git already": {
			facts{record: record{Cancel: &cancel{By: "ann"}, Done: done("first", "left", "right", "late"), Begun: map[string]time.Time{"dev": noon}}},
			"promote dev; Running",
		},
		"cancelled, and everything succeeded all the same": {
			facts{record: record{Cancel: &cancel{By: "ann"}, Done: done("first", "left", "right", "late", "dev"), Begun: map[string]time.Time{"dev": noon}}}, "Succeeded",
		},
		"ended": {facts{record: record{Run: builder.Run{State: builder.Cancelled}}}, "Cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			c.f.pipeline, c.f.now, c.f.lost = parsed(t, wide), noon, 2
			if got := said(next(c.f)); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAcceptedImages(t *testing.T) {
	t.Parallel()
	p := parsed(t, wide)
	right, _ := p.Stage("right")
	first, _ := p.Stage("first")
	ours := gitsource.Revision{ID: "c0ffee"}
	built := func(repository, digest string) claim {
		return claim{Built: []Built{{Image: builder.Image{Repository: repository, Digest: digest, Revision: gitsource.Revision{ID: "another"}}}}}
	}
	good := "sha256:" + strings.Repeat("ab", 32)
	for name, c := range map[string]struct {
		stage pipeline.Stage
		claim claim
		want  string // of the error; empty for none
	}{
		"as the file says":      {right, built("r.example/shop", good), ""},
		"a stage without":       {first, claim{}, ""},
		"another repository":    {right, built("r.example/other", good), "no step of stage right builds for r.example/other"},
		"no digest":             {right, built("r.example/shop", "sha256:abc"), "is no digest"},
		"an invented image":     {first, built("r.example/shop", good), "no step of stage first"},
		"none, where one is to": {right, claim{}, "builds 1 images, and its worker reported 0"},
	} {
		images, err := accepted(record{Run: builder.Run{Revision: ours}}, c.stage, c.claim)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		for _, i := range images {
			if i.Revision != ours {
				t.Errorf("%s: a worker chose the revision: %+v", name, i)
			}
		}
	}
}

// FuzzNext plays a Run with whatever may happen to it. Whatever that was, what is decided stays decided, nothing begins
// before what it needs, deciding twice decides the same, and when nothing goes wrong any more the Run ends.
func FuzzNext(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{3, 3, 3, 3, 17, 33})
	p := parsed(f, wide)
	f.Fuzz(func(t *testing.T, events []byte) {
		m := &model{t: t, f: facts{pipeline: p, claims: map[string]claim{}, orphan: map[string]bool{}, now: noon, lost: 2}}
		for _, e := range events {
			m.step(e)
		}
		for range 60 {
			m.step(0)
		}
		if !m.f.record.Run.State.Ended() {
			t.Fatalf("the run never ends: %s\n%+v", said(next(m.f)), m.f)
		}
		for _, s := range p.Stages {
			if !m.f.record.Done[s.Name].State.Ended() {
				t.Errorf("the run ended as %s, and %s did not", m.f.record.Run.State, s.Name)
			}
		}
	})
}

// model is a queue, its workers and a Loop, one event at a time.
type model struct {
	t *testing.T
	f facts
}

func (m *model) step(event byte) {
	m.f.now = m.f.now.Add(time.Minute)
	d := next(m.f)
	if again := next(m.f); !reflect.DeepEqual(d, again) {
		m.t.Fatalf("%s, and then %s", said(d), said(again))
	}
	m.check(d)
	m.apply(d)
	if m.f.record.Run.State.Ended() {
		return
	}
	// One of those that may act acts; the rest of the byte says how.
	how, who := event%8, int(event/8)
	if how == 7 && m.f.record.Cancel == nil {
		m.f.record.Cancel = &cancel{By: "ann"}
		return
	}
	type act func(good bool)
	var acts []act
	for _, name := range d.hint {
		acts = append(acts, func(bool) {
			c := m.f.claims[name]
			c.Job.State, c.Job.Attempt, c.Job.Worker, c.Job.Started = builder.Running, c.Job.Attempt+1, fmt.Sprint("w", event), m.f.now
			m.f.claims[name] = c
		})
	}
	for _, name := range d.attest {
		acts = append(acts, func(good bool) { m.done(name, good) })
	}
	for _, name := range d.promote {
		acts = append(acts, func(good bool) {
			if m.f.record.Begun == nil {
				m.f.record.Begun = map[string]time.Time{name: m.f.now}
				return
			}
			m.done(name, good)
		})
	}
	for _, s := range m.f.pipeline.Stages {
		if c := m.f.claims[s.Name]; c.Job.State == builder.Running {
			acts = append(acts, func(good bool) { m.report(s.Name, c, good, how) })
		}
	}
	if len(acts) > 0 {
		acts[who%len(acts)](how < 4)
	}
}

func (m *model) report(name string, c claim, good bool, how byte) {
	switch {
	case good:
		c.Job.State = builder.Attesting
	case how == 4:
		m.f.orphan[name] = true
		return
	case how == 5:
		c.Job.State, c.Failures = builder.Failed, c.Failures+1
	default:
		c.Job.State, c.Transient = builder.Failed, true
	}
	m.f.claims[name] = c
}

func (m *model) done(name string, good bool) {
	state := builder.Succeeded
	if !good {
		state = builder.Failed
	}
	m.verdict(name, builder.Job{Name: name, State: state})
}

func (m *model) verdict(name string, j builder.Job) {
	if old, ok := m.f.record.Done[name]; ok {
		m.t.Fatalf("%s was %s and becomes %s", name, old.State, j.State)
	}
	m.f.record.Done = maps.Clone(m.f.record.Done)
	if m.f.record.Done == nil {
		m.f.record.Done = map[string]builder.Job{}
	}
	m.f.record.Done[name] = j
}

func (m *model) check(d decision) {
	for _, name := range slices.Concat(d.hint, d.attest, d.promote) {
		s, _ := m.f.pipeline.Stage(name)
		for _, need := range s.Needs {
			if m.f.record.Done[need].State != builder.Succeeded && d.verdicts[need].State != builder.Succeeded {
				m.t.Fatalf("%s begins before %s: %s", name, need, said(d))
			}
		}
		if _, ok := d.verdicts[name]; ok || m.f.record.Done[name].State.Ended() {
			m.t.Fatalf("%s has ended and goes on: %s", name, said(d))
		}
	}
	if d.state == builder.Succeeded {
		for _, s := range m.f.pipeline.Stages {
			if m.f.record.Done[s.Name].State != builder.Succeeded && d.verdicts[s.Name].State != builder.Succeeded {
				m.t.Fatalf("succeeded without %s", s.Name)
			}
		}
	}
}

func (m *model) apply(d decision) {
	for name, j := range d.verdicts {
		m.verdict(name, j)
	}
	m.f.record.Run.State, m.f.record.Run.Reason = d.state, d.reason
	for name, c := range d.requeue {
		m.f.claims[name] = c
		delete(m.f.orphan, name)
	}
}
