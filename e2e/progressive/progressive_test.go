package progressive

import (
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// errors5xx compares a canary with stable by what the gateway counts.
	errors5xx = `{name: errors, interval: 1s, count: 12, inconclusiveLimit: 30, consecutiveErrorLimit: 15, errors: {gateway: Traefik, minSamples: 60}}`
	// slower compares how long the versions take.
	slower = `{name: latency, interval: 1s, count: 12, inconclusiveLimit: 30, consecutiveErrorLimit: 15, latency: {gateway: Traefik, minSamples: 60}}`
	canary = `{canary: {progressDeadline: 1m, steps: [{weight: 20}, {analysis: [` + errors5xx + `]}, {weight: 60}, {pause: {for: 3s}}]}}`
	timed  = `{canary: {progressDeadline: 1m, steps: [{weight: 20}, {analysis: [` + slower + `]}]}}`
	// watched judges a canary by its pods alone.
	watched = `{canary: {progressDeadline: 1m, steps: [{weight: 20}, {pause: {for: 10m}}]}}`
	// shown is to be seen by testers first.
	shown  = `{canary: {progressDeadline: 1m, steps: [{header: {name: ` + testers + `, value: "yes"}}, {analysis: [` + errors5xx + `]}, {weight: 50}, {pause: {for: 2s}}]}}`
	served = `sum(rate(traefik_service_requests_total{service=~"{{namespace}}-web-.+"`
	// atOnce judges by pods alone, too.
	atOnce = `{rolling: {progressDeadline: 1m}}`
	// switched is blue-green with a bound.
	switched = `{blueGreen: {progressDeadline: 1m, after: [{name: errors, initialDelay: 4s, interval: 1s, count: 5, consecutiveErrorLimit: 15, range: {max: "0.05",
      query: '(` + served + `,code=~"5.."}[4s])) or vector(0)) / ` + served + `}[4s]))'}}]}}`
)

// All stories are told at once, whatever -parallel says: most of each is waiting.
func TestBehindAGateway(t *testing.T) {
	p := newPort(t)
	var told sync.WaitGroup
	for name, tell := range map[string]func(*testing.T, *port){
		"errors":     failsByErrors,
		"latency":    failsByLatency,
		"crash":      failsByCrashing,
		"memory":     failsByMemory,
		"header":     isShownToTesters,
		"blue-green": isSwitched,
		"settings":   failsByItsSettings,
		"hashed":     failsByHashedSettings,
		"rolling":    failsByItsSettingsAtOnce,
	} {
		told.Go(func() { t.Run(name, func(t *testing.T) { tell(t, p) }) })
	}
	told.Wait()
}

func failsByErrors(t *testing.T, p *port) {
	s := p.begin(t, "ferry", canary)
	all := s.asked(60)
	s.goesWell(p.better, all)
	s.comesBack(bad{image: p.failing, reason: "WorseThanBaseline", says: []string{"metric errors"}}, p.better, all)
}

func failsByLatency(t *testing.T, p *port) {
	s := p.begin(t, "barge", timed)
	all := s.asked(60)
	s.comesBack(bad{image: p.slow, reason: "WorseThanBaseline", says: []string{"metric latency"}, print: true}, p.good, all)
}

func failsByCrashing(t *testing.T, p *port) {
	s := p.begin(t, "dinghy", watched)
	all := s.asked(20)
	mark := all.mark()
	s.comesBack(bad{image: p.crashing, reason: "Crashing", says: []string{"has crashed", "exit code 1"}, gone: true}, p.good, all)
	if got := all.since(mark); 20*got.bad() > len(got) { // a fifth goes to a version that is down for most of a minute
		t.Errorf("%d of %d answers were bad: stable did not take the traffic of pods that were down", got.bad(), len(got))
	}
}

func failsByMemory(t *testing.T, p *port) {
	s := p.begin(t, "raft", watched)
	all := s.asked(20)
	s.comesBack(bad{image: p.leaking, reason: "Crashing", says: []string{"OOMKilled"}, gone: true}, p.good, all)
}

func isShownToTesters(t *testing.T, p *port) {
	s := p.begin(t, "pilot", shown)
	all, testing := s.asked(20), s.asked(40, testers, "yes")
	mark, tested := all.mark(), testing.mark()
	s.comesBack(bad{image: p.picky, reason: "WorseThanBaseline", says: []string{"metric errors"}}, p.good, testing)
	if got := all.since(mark); got.by()["3"] > 0 || got.bad() > 0 {
		t.Errorf("people without the header got %v, %d bad", got.by(), got.bad())
	}
	if got := testing.since(tested); got.by()["3"] == 0 || len(got.faults("3")) > 0 || strings.Contains(got[len(got)-1].version, "3") {
		t.Errorf("testers got %v, faults %v, last %+v", got.by(), got.faults("3"), got[len(got)-1])
	}
	mark, tested = all.mark(), testing.mark()
	s.goesWell(p.better, testing)
	later := all.since(mark).first("2").Sub(testing.since(tested).first("2"))
	if got := all.since(mark); got.bad() > 0 || later < 5*time.Second {
		t.Errorf("people without the header saw version 2 %s after testers, %d bad answers", later, got.bad())
	}
}

func isSwitched(t *testing.T, p *port) {
	s := p.begin(t, "tug", switched)
	all := s.asked(60)
	s.goesWell(p.better, all)
	s.comesBack(bad{image: p.failing, reason: "MetricOutOfRange", says: []string{"metric errors"}}, p.better, all)
}

// failing are settings with which a good image answers a third of all requests by an error.
func failing() []string { return []string{"SHOP_VERSION=3", "SHOP_FAILS=33"} }

// The name of a ConfigMap says nothing: what it says goes back with the pods.
func failsByItsSettings(t *testing.T, p *port) {
	s := p.begin(t, "wherry", canary)
	all := s.asked(40)
	s.comesBack(bad{image: p.good, settings: failing(), reason: "WorseThanBaseline", says: []string{"metric errors"}}, p.good, all)
}

func failsByHashedSettings(t *testing.T, p *port) {
	s := p.begin(t, "gig", canary)
	all := s.asked(40)
	_, err := s.Commit(s.Context(), "Name the settings of gig by what they say", settings(s.app, ""))
	s.must(err)
	s.runs(p.good)
	s.comesBack(bad{image: p.good, settings: failing(), reason: "WorseThanBaseline", says: []string{"metric errors"}}, p.good, all)
}

func failsByItsSettingsAtOnce(t *testing.T, p *port) {
	s := p.begin(t, "punt", atOnce)
	all := s.asked(20)
	s.comesBack(bad{image: p.good, settings: []string{"SHOP_VERSION=3", "SHOP_BEHAVIOUR=crash"}, reason: "Crashing", says: []string{"has crashed", "exit code 1"}}, p.good, all)
}
