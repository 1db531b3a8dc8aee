package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Change is one action that was carried out.
type Change struct {
	Ref    manifests.Ref
	Verb   string // past tense: "created", "configured", "healed", "adopted", "recreated", "deleted"
	Reason string
	UID    string
	Drift  bool
}

// Event tells of one action while an Apply runs: Change when Err is nil.
type Event struct {
	Stage  string
	Ref    manifests.Ref
	Change Change
	Err    error // *ObjectError
}

// Result is what an Apply did, also when it failed.
type Result struct {
	Done []Change // ordered by stage, then Ref
	// Entries to put into the Inventory and Gone to take out: Plan.Inventory.Merge(Entries, Gone).
	// A deleted object that waits for finalizers is not Gone yet.
	Entries map[manifests.Ref]plan.Entry
	Gone    []manifests.Ref
	// Errors are the objects that failed; Skipped are the actions of stages that were not begun.
	Errors  []*ObjectError
	Skipped []manifests.Ref
}

// outcome is what became of one action.
type outcome struct {
	change Change
	entry  *plan.Entry // to put into the Inventory
	gone   bool
	err    *ObjectError
}

// Apply carries out p stage by stage, one server-side-apply PATCH for each
// object. Within a stage all objects are tried; a stage with errors ends the
// Apply, and the error joins all of its ObjectErrors. It refuses a held Plan
// with ErrHeld. on may be nil; it is called from one goroutine at a time.
func (a *Applier) Apply(ctx context.Context, p plan.Plan, on func(Event)) (Result, error) {
	result := Result{Entries: map[manifests.Ref]plan.Entry{}}
	if p.Held != "" {
		return result, fmt.Errorf("application %s: %w: %s", p.Application, ErrHeld, p.Held)
	}
	for i, stage := range p.Stages {
		err := a.applyStage(ctx, stage, &result, on)
		if err != nil {
			for _, later := range p.Stages[i+1:] {
				for _, action := range later.Actions {
					result.Skipped = append(result.Skipped, action.Ref)
				}
			}
			return result, err
		}
	}
	return result, nil
}

// applyStage carries out one stage and waits for its gate.
func (a *Applier) applyStage(ctx context.Context, stage plan.Stage, result *Result, on func(Event)) error {
	outcomes := make([]outcome, len(stage.Actions))
	var told sync.Mutex
	a.parallel(len(stage.Actions), func(i int) {
		outcomes[i] = a.carryOut(ctx, stage.Actions[i])
		if on == nil {
			return
		}
		event := Event{Stage: stage.Name, Ref: stage.Actions[i].Ref, Change: outcomes[i].change}
		if outcomes[i].err != nil {
			event.Err = outcomes[i].err
		}
		told.Lock()
		defer told.Unlock()
		on(event)
	})
	var errs []error
	for i, o := range outcomes {
		ref := stage.Actions[i].Ref
		if o.entry != nil {
			result.Entries[ref] = *o.entry
		}
		if o.gone {
			result.Gone = append(result.Gone, ref)
		}
		if o.err != nil {
			result.Errors = append(result.Errors, o.err)
			errs = append(errs, o.err)
			continue
		}
		result.Done = append(result.Done, o.change)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := a.awaitGate(ctx, stage); err != nil {
		result.Errors = append(result.Errors, err)
		return err
	}
	return nil
}

// carryOut does one action.
func (a *Applier) carryOut(ctx context.Context, action plan.Action) outcome {
	var o outcome
	var err error
	switch action.Verb {
	case plan.Create, plan.Configure, plan.Heal, plan.Adopt:
		o, err = a.send(ctx, action)
	case plan.Delete:
		o, err = a.remove(ctx, action)
	default:
		err = fmt.Errorf("%s is not something to carry out", action.Verb)
	}
	if err != nil {
		o.err = objectError(action.Ref, err)
	}
	return o
}

// parallel calls work for 0 to n-1, a bounded number at a time, and waits.
func (a *Applier) parallel(n int, work func(i int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, a.options.Parallel)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			work(i)
		})
	}
	group.Wait()
}
