package analysis

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Strategy says how a new version comes in. It is at most one of its fields; the zero value lets the workload replace its
// pods and watches the clock.
//
// With a field set the new version runs beside the stable one, in a workload of its own, and gets its share of traffic
// step by step. The first version ever has nothing to run beside, so it comes in as with the zero value.
type Strategy struct {
	Canary    *Canary
	BlueGreen *BlueGreen
	Rolling   *Batches
}

// Canary shifts traffic by weights.
type Canary struct {
	// Steps are done one after the other; after the last the new version takes all traffic and becomes stable.
	Steps []Step
	// Analysis watches from the first traffic to the end. What has passed is watched on, and the end waits until all have.
	Analysis []Metric
	// DynamicStableScale makes stable as much smaller as it has less traffic. It costs time when a version fails: traffic
	// returns as stable grows, because all at once would take stable down too.
	DynamicStableScale bool
	// Hooks have a say on the way.
	Hooks []Hook `json:",omitempty"`
	// Unrouted says that no router is told the weight: it is the share of pods, so that stable shrinks as the canary grows.
	Unrouted bool
}

// Step is exactly one of its fields.
type Step struct {
	// Weight is the percentage of traffic for the canary, which is made large enough for it first.
	Weight *int
	// Pause waits, for a time or until approved.
	Pause *Halt
	// Replicas is the percentage of the workload's size that the canary has at least from here on.
	Replicas *int
	// Header sends requests that carry it to the canary, whatever the weight; the zero Header ends that.
	Header *Header
	// Analysis goes on when all metrics have passed.
	Analysis []Metric
}

// Halt is for a time; zero is until a person approves.
type Halt struct{ For time.Duration }

// Header of a request, with its exact value.
type Header struct{ Name, Value string }

// BlueGreen moves all traffic at once, and back as fast.
type BlueGreen struct {
	// Before is measured on the new version while people reach it by the preview only.
	Before []Metric
	// Approve waits for a person before the switch.
	Approve bool
	// After is measured once it has the traffic; the old version is kept in full meanwhile.
	After []Metric
	// ScaleDownDelay is how long the old version is kept after that.
	ScaleDownDelay time.Duration
	Hooks          []Hook `json:",omitempty"`
}

// Batches replaces pods in steps and uses no router: traffic goes to all pods alike.
type Batches struct {
	// Batches are done one after the other; after the last all pods become new.
	Batches []Batch
	// Ordinal says that nothing runs beside the workload: it takes the new version in itself, from the pod with the highest
	// ordinal down, and stable back the same way.
	Ordinal bool
	Hooks   []Hook `json:",omitempty"`
}

// Batch is done when this percentage of all pods is new, the pause is over and the metrics have passed.
type Batch struct {
	Percent  int
	Pause    *Halt
	Analysis []Metric
}

// course is what a Strategy comes down to.
type course struct {
	steps      []Step
	background []Metric
	hooks      []Hook
	// shrinks says that stable gets smaller as the canary grows.
	shrinks bool
	// routed says that a router is told the weight; else it follows from the numbers of pods.
	routed bool
	// ordinal says that the workload takes the canary in itself.
	ordinal bool
	// preview says that people can reach the canary before it has traffic.
	preview bool
	// name tells this Strategy from others, empty for the zero one.
	name string
}

// digest tells Strategies apart.
func (s Strategy) digest() string {
	content, err := json.Marshal(s)
	if err != nil { // a bound that is no number, which Validate refuses
		return err.Error()
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

func percent(n int) *int { return &n }

// course is false for the zero Strategy.
func (s Strategy) course() (course, bool) {
	switch {
	case s.Canary != nil:
		return course{
			steps: ended(s.Canary.Steps), background: s.Canary.Analysis,
			shrinks: s.Canary.DynamicStableScale || s.Canary.Unrouted, routed: !s.Canary.Unrouted, name: s.digest(), hooks: s.Canary.Hooks,
		}, true
	case s.BlueGreen != nil:
		return course{steps: s.BlueGreen.steps(), routed: true, preview: true, name: s.digest(), hooks: s.BlueGreen.Hooks}, true
	case s.Rolling != nil:
		return course{steps: ended(s.Rolling.steps()), shrinks: true, ordinal: s.Rolling.Ordinal, name: s.digest(), hooks: s.Rolling.Hooks}, true
	}
	return course{}, false
}

// ended gives the new version all traffic in the end, also when the steps do not say so.
func ended(steps []Step) []Step {
	last := 0
	for _, s := range steps {
		if s.Weight != nil {
			last = *s.Weight
		}
	}
	if last == 100 {
		return steps
	}
	return append(steps[:len(steps):len(steps)], Step{Weight: percent(100)})
}

func (b BlueGreen) steps() []Step {
	steps := []Step{{Replicas: percent(100)}}
	if len(b.Before) > 0 {
		steps = append(steps, Step{Analysis: b.Before})
	}
	if b.Approve {
		steps = append(steps, Step{Pause: &Halt{}})
	}
	steps = append(steps, Step{Weight: percent(100)})
	if len(b.After) > 0 {
		steps = append(steps, Step{Analysis: b.After})
	}
	if b.ScaleDownDelay > 0 {
		steps = append(steps, Step{Pause: &Halt{For: b.ScaleDownDelay}})
	}
	return steps
}

func (b Batches) steps() (steps []Step) {
	for _, batch := range b.Batches {
		steps = append(steps, Step{Weight: percent(batch.Percent)})
		if batch.Pause != nil {
			steps = append(steps, Step{Pause: batch.Pause})
		}
		if len(batch.Analysis) > 0 {
			steps = append(steps, Step{Analysis: batch.Analysis})
		}
	}
	return steps
}

// Validate says what does not make sense.
func (s Strategy) Validate() error {
	given := 0
	for _, is := range []bool{s.Canary != nil, s.BlueGreen != nil, s.Rolling != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		return errors.New("strategy: canary, blueGreen and rolling exclude each other")
	}
	if s.Canary != nil && s.Canary.Unrouted && s.Canary.DynamicStableScale {
		return errors.New("dynamicStableScale: without a router stable shrinks anyway (name Routes, or take it out)")
	}
	c, _ := s.course()
	highest, names := 0, map[string]bool{}
	for i, step := range c.steps {
		if err := step.validate(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		if s.Rolling != nil && step.Weight != nil && *step.Weight <= highest {
			return fmt.Errorf("step %d: batches must grow: %d%% after %d%%", i+1, *step.Weight, highest)
		}
		if step.Weight != nil {
			highest = *step.Weight
		}
		if s.Canary != nil && s.Canary.Unrouted && step.Header != nil {
			return fmt.Errorf("step %d: header: without a router nothing can send by it", i+1)
		}
		if err := validateMetrics(step.Analysis, names); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	if err := validateHooks(c.hooks); err != nil {
		return err
	}
	return validateMetrics(c.background, names)
}

func (s Step) validate() error {
	kinds := 0
	for _, is := range []bool{s.Weight != nil, s.Pause != nil, s.Replicas != nil, s.Header != nil, len(s.Analysis) > 0} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return fmt.Errorf("has %d of weight, pause, replicas, header and analysis: give one", kinds)
	case s.Weight != nil && (*s.Weight < 0 || *s.Weight > 100):
		return fmt.Errorf("weight %d: must be a percentage", *s.Weight)
	case s.Replicas != nil && (*s.Replicas < 0 || *s.Replicas > 100):
		return fmt.Errorf("replicas %d: must be a percentage of the workload's size", *s.Replicas)
	case s.Pause != nil && s.Pause.For < 0:
		return errors.New("pause: must not be negative")
	case s.Header != nil && (s.Header.Name == "") != (s.Header.Value == ""):
		return errors.New("header: give name and value, or neither to end the match")
	}
	return nil
}

// validateMetrics also sees to it that looks can be told apart by name.
func validateMetrics(metrics []Metric, names map[string]bool) error {
	for _, m := range metrics {
		if err := m.Validate(); err != nil {
			return err
		}
		if names[m.Name] {
			return fmt.Errorf("metric %q: there are two of that name", m.Name)
		}
		names[m.Name] = true
	}
	return nil
}
