package analysis_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestStories runs testdata/stories.txt. A line that starts a story is "== name", a line without indent is what
// happens, and indented lines are what Next made of it.
func TestStories(t *testing.T) {
	const path = "testdata/stories.txt"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	var teller *story
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "  "):
			continue
		case strings.HasPrefix(line, "== "):
			teller = newStory()
		}
		fmt.Fprintln(&got, line)
		if line != "" && !strings.HasPrefix(line, "== ") && !strings.HasPrefix(line, "#") {
			teller.happens(t, line)
			got.WriteString(teller.take())
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != string(content) && !*update {
		t.Errorf("stories differ; run with -update and read the difference\n%s", got.String())
	}
}

// story is a Rollout with a workload that does what the lines say.
type story struct {
	out         strings.Builder
	state       analysis.State
	o           analysis.Observation
	pods        analysis.Pods
	refusal     *analysis.Refusal
	recordFails bool
	killed      bool // after Record
}

func newStory() *story {
	begin := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	return &story{o: analysis.Observation{
		Now: begin, Deadline: 5 * time.Minute,
		Workload: analysis.Workload{Knowledge: analysis.Absent, Current: true, Wanted: 3},
	}}
}

func (s *story) take() string {
	defer s.out.Reset()
	return s.out.String()
}

func bundle(name string) v1alpha1.BundleRef {
	return v1alpha1.BundleRef{Name: name, Digest: "digest-" + name, SetDigest: "set-" + name, Revision: "commit-" + name}
}

func (s *story) happens(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	rest := strings.TrimSpace(strings.TrimPrefix(line, words[0]))
	s.recordFails, s.killed, s.refusal = false, false, nil
	switch words[0] {
	case "target":
		asked := bundle(words[1])
		if len(words) > 2 && words[2][0] != '!' {
			asked.SetDigest = words[2]
		}
		s.o.Target = &asked
	case "after":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		s.o.Now = s.o.Now.Add(d)
	case "restart":
		s.restart(t)
	case "unknown":
		s.o.Workload.Knowledge, s.o.Workload.Why = analysis.Unknown, rest
	case "deleted":
		s.o.Workload = analysis.Workload{Knowledge: analysis.Absent, Current: true, Wanted: 3}
	default:
		s.workload(t, words)
	}
	s.faults(words)
	s.run()
}

// faults are words at the end of any line.
func (s *story) faults(words []string) {
	switch words[len(words)-1] {
	case "!record-fails":
		s.recordFails = true
	case "!killed-after-record":
		s.killed = true
	case "!refused-invalid":
		s.refusal = &analysis.Refusal{Invalid: true, Message: "spec.replicas: must not be negative"}
	case "!refused-busy":
		s.refusal = &analysis.Refusal{Message: "the server is currently unable to handle the request"}
	}
}

// workload reads "status updated=1 available=2", "pods new=crash:3,ready old=ready".
func (s *story) workload(t *testing.T, words []string) {
	t.Helper()
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		number, _ := strconv.Atoi(value)
		w := &s.o.Workload
		switch key {
		case "wanted":
			w.Wanted = int32(number)
		case "replicas":
			w.Replicas = int32(number)
		case "updated":
			w.Updated = int32(number)
		case "available":
			w.Available = int32(number)
		case "current":
			w.Current = value == "true"
		case "paused":
			w.Paused = value == "true"
		case "creation":
			w.Creation = value
		case "new":
			s.pods.New = pods(key, value)
		case "old":
			s.pods.Old = pods(key, value)
		case "unlisted":
			s.pods.Unknown = value
		case "listed":
			s.pods.Unknown = ""
		default:
			if !strings.HasPrefix(key, "!") {
				t.Fatalf("%q is nothing that happens", key)
			}
		}
	}
	if s.o.Workload.Knowledge == analysis.Unknown {
		s.o.Workload.Knowledge = analysis.Present
	}
}

func pods(prefix, value string) []analysis.Pod {
	var list []analysis.Pod
	for i, word := range strings.Split(value, ",") {
		if word == "" {
			continue
		}
		list = append(list, pod(fmt.Sprintf("%s-%d", prefix, i), word))
	}
	return list
}

// pod makes a pod of one word: ready, stuck, young, crash:RESTARTS, nowhere, lost, or a reason of the kubelet.
func pod(name, word string) analysis.Pod {
	p := analysis.Pod{Name: name, Scheduled: true}
	kind, number, _ := strings.Cut(word, ":")
	switch kind {
	case "ready":
		p.Ready = true
	case "stuck":
		p.Running = 4 * time.Minute
	case "young":
		p.Running = 4 * time.Second
	case "crash":
		restarts, _ := strconv.Atoi(number)
		p.Reason, p.Message, p.Restarts = "CrashLoopBackOff", "exit code 1", int32(restarts)
	case "nowhere":
		p.Scheduled, p.Reason, p.Message = false, "Unschedulable", "0/3 nodes: insufficient cpu"
	case "lost":
		p.NodeNotReady = true
	default:
		p.Reason = kind
	}
	return p
}

// restart forgets all that is not in the API server.
func (s *story) restart(t *testing.T) {
	t.Helper()
	var status v1alpha1.RolloutStatus
	s.state.Into(&status)
	content, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	var read v1alpha1.RolloutStatus
	if err := json.Unmarshal(content, &read); err != nil {
		t.Fatal(err)
	}
	s.state = analysis.FromStatus(read)
}

// run is the loop: effects in order, the first failure ends them, traffic returns in any case.
func (s *story) run() {
	o := s.o
	for {
		next, effects := analysis.Next(s.state, o)
		again, recorded := false, true
		for _, effect := range effects {
			switch e := effect.(type) {
			case analysis.Record:
				recorded = !s.recordFails
				fmt.Fprintf(&s.out, "  record %s%s\n", describe(next), map[bool]string{false: ": FAILED"}[recorded])
				if recorded {
					s.state = next
				}
				if s.killed {
					fmt.Fprintln(&s.out, "  KILLED")
					return
				}
			case analysis.Apply:
				if !recorded && !e.Regardless {
					fmt.Fprintln(&s.out, "  nothing else is done")
					return
				}
				if s.refusal != nil {
					fmt.Fprintf(&s.out, "  apply %s: REFUSED\n", e.Bundle.Name)
					o.Refusal, s.refusal, again = s.refusal, nil, true
					break
				}
				s.place(e)
			case analysis.Tell:
				fmt.Fprintf(&s.out, "  event %s: %s\n", e.Reason, e.Message)
			case analysis.Inspect:
				fmt.Fprintln(&s.out, "  inspect")
				looked := s.pods
				o.Pods, again = &looked, true
			case analysis.WakeAt:
				if !again {
					fmt.Fprintf(&s.out, "  wake after %s\n", e.At.Sub(s.o.Now))
				}
			}
		}
		if !again {
			return
		}
	}
}

// place is what the API server and the Deployment controller do at once.
func (s *story) place(e analysis.Apply) {
	fmt.Fprintf(&s.out, "  apply %s", e.Bundle.Name)
	if e.Placed.Failed != "" {
		fmt.Fprintf(&s.out, ", which replaces %s", strings.TrimPrefix(e.Placed.Failed, "digest-"))
	}
	fmt.Fprintln(&s.out)
	w := &s.o.Workload
	if w.Knowledge == analysis.Absent || w.Placed.Bundle != e.Bundle.Digest {
		w.Knowledge, w.Updated = analysis.Present, 0
	}
	w.Placed = e.Placed
}

func describe(s analysis.State) string {
	words := []string{string(s.Phase)}
	if s.Target != nil {
		words = append(words, "target="+s.Target.Name)
	}
	if s.Stable != nil {
		words = append(words, "stable="+s.Stable.Name)
	}
	if s.Verdict != nil {
		words = append(words, "verdict="+s.Verdict.Outcome+"/"+s.Verdict.Reason+" of "+s.Verdict.SetDigest)
	}
	if s.Verdict != nil && s.Verdict.Outcome != v1alpha1.VerdictInconclusive {
		words = append(words, fmt.Sprintf("samples=%d", len(s.Verdict.Samples)))
	} else {
		words = append(words, fmt.Sprintf("samples=%d", len(s.Samples)))
	}
	return strings.Join(words, " ")
}
