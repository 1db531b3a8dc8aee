// Package builder names what the build half hands on: the Run of a pipeline, its
// Jobs and Steps, what they print, and the Images that come out.
//
// It holds values only, as they are stored and as the API shows them. Who may
// change which of them, and how, is the business of package run.
package builder

import (
	"errors"
	"fmt"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

// ErrNotFound says that a Run or Job is definitely not there.
var ErrNotFound = errors.New("not found")

// Image is an OCI digest plus the Revision it was built from.
type Image struct {
	Repository string             `json:"repository"` // HOST[:PORT]/PATH, without tag and digest
	Digest     string             `json:"digest"`     // "sha256:..."
	Revision   gitsource.Revision `json:"revision"`
}

// Reference returns REPOSITORY@DIGEST.
func (i Image) Reference() string { return i.Repository + "@" + i.Digest }

// State is how far a Run, Job or Step has come.
type State uint8

// The states. Pending is the zero value: what nobody has begun is not done.
const (
	Pending State = iota
	Running
	// Attesting is that of a Job whose images are pushed, and neither signed nor usable yet.
	Attesting
	Succeeded
	Failed
	// Cancelled was stopped by a person, or by a newer Run that takes its place.
	Cancelled
	// Skipped can never begin, because what it needs did not succeed.
	Skipped
)

var states = [...]string{"Pending", "Running", "Attesting", "Succeeded", "Failed", "Cancelled", "Skipped"} //nolint:gochecknoglobals // the names of a closed list

// String returns the name of the constant.
func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Ended reports whether s never changes again.
func (s State) Ended() bool { return s >= Succeeded }

// MarshalText writes the name.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(states) {
		return nil, fmt.Errorf("state %d has no name", uint8(s))
	}
	return []byte(states[s]), nil
}

// UnmarshalText reads a name; unknown ones are refused.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range states {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("state %q is none of %v", text, states)
}

// Repo is a source repository that Runs are made for.
type Repo struct {
	Name string `json:"name"` // as the server's configuration calls it: "shop"
	URL  string `json:"url"`  // to clone from, without credentials
}

// Trigger is what began a Run.
type Trigger struct {
	Kind       string    `json:"kind"` // "push", "retry"
	Actor      string    `json:"actor,omitempty"`
	Delivery   string    `json:"delivery,omitempty"` // id that the Git host gave to its message
	ReceivedAt time.Time `json:"receivedAt"`
}

// Run is one execution of a Pipeline at one Revision.
type Run struct {
	// ID sorts by time of creation and may be part of paths, subjects and URLs.
	ID       string             `json:"id"`
	Repo     Repo               `json:"repo"`
	Revision gitsource.Revision `json:"revision"`
	Pipeline string             `json:"pipeline"`
	// Trace is the W3C trace id, 32 hex digits, that everything made of this Run carries.
	Trace   string  `json:"trace"`
	Trigger Trigger `json:"trigger"`
	State   State   `json:"state"`
	// Reason says in words why the State is as it is; empty where there is nothing to say.
	Reason   string    `json:"reason,omitempty"`
	Created  time.Time `json:"created"`
	Finished time.Time `json:"finished,omitzero"`
	Jobs     []Job     `json:"jobs"` // in the order of the file
}

// Job is one node of a Run's graph: one stage of the Pipeline.
type Job struct {
	Name   string   `json:"name"`
	Needs  []string `json:"needs,omitempty"`
	State  State    `json:"state"`
	Reason string   `json:"reason,omitempty"`
	// Attempt counts how often the Job was claimed, from 1; what an older attempt reports is dropped.
	Attempt int    `json:"attempt,omitempty"`
	Worker  string `json:"worker,omitempty"` // that has or had the newest attempt
	// Tier names the isolation that the steps ran in; Missing says in words what that tier lacked.
	Tier     string    `json:"tier,omitempty"`
	Missing  []string  `json:"missing,omitempty"`
	Started  time.Time `json:"started,omitzero"` // of the newest attempt
	Finished time.Time `json:"finished,omitzero"`
	Steps    []Step    `json:"steps"`
	Images   []Image   `json:"images,omitempty"` // that it built
	// Promotion is what a Job that promotes has written; nil for others.
	Promotion *Promotion `json:"promotion,omitempty"`
}

// Step is one command of a Job, or one thing that Slipway does for it.
type Step struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	ExitCode int       `json:"exitCode,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// Promotion is what became of an image that was to go into an Environment.
type Promotion struct {
	App         string             `json:"app"`
	Environment string             `json:"environment"`
	Commit      gitsource.ObjectID `json:"commit,omitempty"` // on the environment repo
	Branch      string             `json:"branch,omitempty"` // that a request waits on, without refs/heads/
	URL         string             `json:"url,omitempty"`    // of the pull request
	// Dropped says why nothing was written: a Hold, a newer image; empty when it was.
	Dropped string `json:"dropped,omitempty"`
}

// Log is one line that a Step printed, or that Slipway says about it.
type Log struct {
	// Sequence grows within a Job, with gaps; a reader goes on behind the last one that it has seen.
	Sequence uint64    `json:"sequence"`
	At       time.Time `json:"at"`
	Attempt  int       `json:"attempt"`
	Step     int       `json:"step"`   // index into Job.Steps
	Stream   string    `json:"stream"` // "stdout", "stderr", "slipway"
	Text     string    `json:"text"`   // without line end; valid UTF-8
}
