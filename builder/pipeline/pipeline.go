// Package pipeline reads .pipeline.yml: a graph of stages, of which the ready ones
// can be asked for.
//
// It promises that a file is either understood completely or refused with line,
// column, cause and way out: a key or value that this version does not honour is
// an error, never ignored. It is pure: bytes in, values out.
package pipeline

import (
	"time"

	"github.com/slipway-cd/slipway/builder"
)

// Path is where the definition stands in a source repository.
const Path = ".pipeline.yml"

// What a Step may use instead of running a command.
const (
	Checkout = "checkout"
	GoImage  = "go-image"
	Promote  = "promote"
)

// DefaultTimeout bounds a stage that names no other.
const DefaultTimeout = 30 * time.Minute

// Isolation is what a pipeline asks of the place where its steps run.
type Isolation string

// The isolations. With AnyIsolation the Run says what was missing and goes on.
const (
	AnyIsolation Isolation = ""
	Isolated     Isolation = "isolated"
)

// Pipeline is a definition that can be carried out.
type Pipeline struct {
	Name      string
	Trigger   Trigger
	Isolation Isolation
	Env       map[string]string // of every step
	Stages    []Stage           // at least one, in the order of the file
}

// Trigger says which pushes begin a Run.
type Trigger struct {
	// Branches are patterns of branch names: * stands for anything but a slash, ** for
	// anything, ? for one character. Default: main.
	Branches []string
}

// Stage becomes one Job.
type Stage struct {
	Name  string
	Needs []string // that have to succeed before
	// Image is the root file system of the steps; empty for the worker's own tools, read-only.
	Image string
	// Environment that the stage promotes into; empty for other stages.
	Environment string
	Env         map[string]string
	Network     bool
	Timeout     time.Duration
	Retries     int // how often it is tried again after it has failed
	Steps       []Step
	Line        int
}

// Step runs a command, or uses something that Slipway brings. One of Run and Uses is set.
type Step struct {
	Name string // default: the first line of the command, or what it uses
	Run  string
	Uses string
	With map[string]string
	Env  map[string]string
	Line int
}

// Promotes reports whether the server carries the stage out itself.
func (s Stage) Promotes() bool { return len(s.Steps) == 1 && s.Steps[0].Uses == Promote }

// Stage returns the stage called name; false if there is none.
func (p Pipeline) Stage(name string) (Stage, bool) {
	for _, s := range p.Stages {
		if s.Name == name {
			return s, true
		}
	}
	return Stage{}, false
}

// Ready returns the stages that may begin now, in the order of the file: they are Pending and all they need Succeeded.
func (p Pipeline) Ready(state func(stage string) builder.State) []string {
	var ready []string
	for _, s := range p.Stages {
		if state(s.Name) == builder.Pending && s.all(state, builder.Succeeded) {
			ready = append(ready, s.Name)
		}
	}
	return ready
}

// Blocked returns the Pending stages that can never begin, because something that they need, however far up, ended
// without success. They are in the order of the file.
func (p Pipeline) Blocked(state func(stage string) builder.State) []string {
	blocked := map[string]bool{}
	for changed := true; changed; {
		changed = false
		for _, s := range p.Stages {
			if blocked[s.Name] || state(s.Name) != builder.Pending {
				continue
			}
			for _, need := range s.Needs {
				if of := state(need); blocked[need] || of.Ended() && of != builder.Succeeded {
					blocked[s.Name], changed = true, true
				}
			}
		}
	}
	var names []string
	for _, s := range p.Stages {
		if blocked[s.Name] {
			names = append(names, s.Name)
		}
	}
	return names
}

func (s Stage) all(state func(string) builder.State, want builder.State) bool {
	for _, need := range s.Needs {
		if state(need) != want {
			return false
		}
	}
	return true
}

// Images returns the stages that build images among those that stage needs, directly or through others, in the order of the file.
func (p Pipeline) Images(stage string) []string {
	above := p.above(stage)
	var names []string
	for _, s := range p.Stages {
		if above[s.Name] && s.builds() {
			names = append(names, s.Name)
		}
	}
	return names
}

// above are the stages that stage needs, directly or through others.
func (p Pipeline) above(stage string) map[string]bool {
	above := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		s, _ := p.Stage(name)
		for _, need := range s.Needs {
			if !above[need] {
				above[need] = true
				add(need)
			}
		}
	}
	add(stage)
	return above
}

func (s Stage) builds() bool {
	for _, step := range s.Steps {
		if step.Uses == GoImage {
			return true
		}
	}
	return false
}
