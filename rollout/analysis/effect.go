package analysis

import (
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Effect is one thing to do. Effects are done in order; the first failure ends them, except for Apply.Regardless.
type Effect interface{ effect() }

// Record writes the State that Next returned to the API server, in one request.
type Record struct{}

// Apply puts a Bundle in place and marks the workload with Placed.
type Apply struct {
	Bundle v1alpha1.BundleRef
	Placed Placed
	// Regardless says to do it also when Record failed: traffic returns in any case.
	Regardless bool
}

// Inspect looks at the pods; Next is asked again with them, and the State that it returned.
type Inspect struct{}

// Tell is an event for people.
type Tell struct {
	Warning bool
	Reason  string
	Message string
}

// WakeAt asks for Next no later than that, even when nothing happens.
type WakeAt struct{ At time.Time }

func (Record) effect()  {}
func (Apply) effect()   {}
func (Inspect) effect() {}
func (Tell) effect()    {}
func (WakeAt) effect()  {}
