package courses

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
)

// course is how one app fares while its agent is killed: its versions are good unless something is said.
type course struct {
	app
	crashes bool
	bad     string // the gauge that shows something bad
	aborted int    // the step, counted from one, at which a person takes the version out, and then lets it come in again
	// kills are failpoints, with /WHERE in the end where it has to be there. Those without are hit wherever that is first.
	kills []string
}

const (
	header  = "step-1" // of routes
	waiting = "step-2"
	first   = "step-4"
	judged  = "step-5"
	further = "step-6"
)

// courses is the table. Strategies that are new have their place here.
func courses() []course {
	paused := strings.Replace(routes, `{weight: 60}`, `{weight: 60}, {pause: {}}`, 1)
	pausedPods := strings.Replace(pods, `{weight: 50}`, `{weight: 50}, {pause: {}}`, 1)
	delayed := strings.Replace(blueGreen, `scaleDownDelay: 2s`, `scaleDownDelay: 20s`, 1)
	at := func(where string, points ...string) (all []string) {
		for _, point := range points {
			all = append(all, point+"/"+where)
		}
		return all
	}
	ends := at("healthy", rollout.FailpointRemoval, rollout.FailpointRemoved)
	// As soon as the failed version is marked the Application asks for stable again, so that the rest is done as healthy.
	returns := slices.Concat(at("returning", rollout.FailpointVerdict, rollout.FailpointMoved), ends)
	// With Routes there is more to wait for before all traffic is moved; by then stable has been asked for, and it is healthy.
	fled := slices.Concat(at("returning", rollout.FailpointVerdict), ends)
	anywhere := []string{rollout.FailpointRecord, rollout.FailpointMoved, rollout.FailpointTraffic}
	look := func(wheres ...string) (all []string) {
		for _, where := range wheres {
			all = append(all, rollout.FailpointLook+"/"+where)
		}
		return all
	}
	return []course{
		{app: app{name: "rolling-good", strategy: rolling}, kills: slices.Concat(look("progressing"), []string{
			rollout.FailpointArrange, rollout.FailpointTraffic, rollout.FailpointRecord,
		})},
		{app: app{name: "rolling-crashing", strategy: rolling}, crashes: true, kills: slices.Concat(
			at("returning", rollout.FailpointVerdict, rollout.FailpointTraffic, rollout.FailpointLook),
		)},

		{app: app{name: "routes-good", strategy: routes, routed: true}, kills: slices.Concat(
			at(header, rollout.FailpointArrange, rollout.FailpointCanary), look(waiting), at(first, rollout.FailpointCanary), look(judged),
			at(further, rollout.FailpointArrange), at("promoting", rollout.FailpointStable, rollout.FailpointLook), ends, anywhere,
		)},
		{app: app{name: "routes-failing", strategy: routes, routed: true}, bad: "after", kills: fled},
		{app: app{name: "routes-crashing", strategy: routes, routed: true}, crashes: true, kills: slices.Concat(
			at(header, rollout.FailpointCanary), fled,
		)},
		{app: app{name: "routes-aborted", strategy: paused, routed: true}, aborted: 7, kills: slices.Concat(
			look("withdrawing", "step-7"), at("withdrawing", rollout.FailpointMoved, rollout.FailpointRemoval, rollout.FailpointRemoved), ends,
		)},

		{app: app{name: "pods-good", strategy: pods}, kills: slices.Concat(
			at("step-1", rollout.FailpointArrange, rollout.FailpointCanary), look("step-2", "step-3"), at("step-4", rollout.FailpointArrange),
			at("promoting", rollout.FailpointStable, rollout.FailpointLook), ends, anywhere,
		)},
		{app: app{name: "pods-failing", strategy: pods}, bad: "after", kills: slices.Concat(
			returns, at("returning", rollout.FailpointStable),
		)},
		{app: app{name: "pods-aborted", strategy: pausedPods}, aborted: 5, kills: slices.Concat(
			look("withdrawing"), at("withdrawing", rollout.FailpointStable, rollout.FailpointRemoved),
		)},

		{app: app{name: "batches-good", strategy: batches}, kills: slices.Concat(
			at("step-1", rollout.FailpointCanary), look("step-2"), at("step-3", rollout.FailpointArrange), look("step-4"),
			at("promoting", rollout.FailpointStable), ends, anywhere,
		)},
		{app: app{name: "batches-failing", strategy: batches}, bad: "after", kills: returns},

		{app: app{name: "set-good", strategy: batches, ordinal: true}, kills: slices.Concat(
			at("step-1", rollout.FailpointArrange, rollout.FailpointTraffic), look("step-2"), at("step-3", rollout.FailpointArrange), look("step-4"),
			[]string{rollout.FailpointRecord},
		)},
		{app: app{name: "set-failing", strategy: batches, ordinal: true}, bad: "after", kills: slices.Concat(
			at("returning", rollout.FailpointVerdict), look("returning"),
		)},

		{app: app{name: "blue-good", strategy: blueGreen}, kills: slices.Concat(
			at("step-1", rollout.FailpointCanary), look("step-2"), at("step-3", rollout.FailpointArrange), look("step-4", "step-5"),
			at("promoting", rollout.FailpointStable), ends, anywhere,
		)},
		{app: app{name: "blue-failing-before", strategy: blueGreen}, bad: "before", kills: returns},
		{app: app{name: "blue-failing-after", strategy: blueGreen}, bad: "after", kills: returns},
		{app: app{name: "blue-aborted", strategy: delayed}, aborted: 5, kills: slices.Concat(
			look("withdrawing", "step-5"), at("withdrawing", rollout.FailpointMoved, rollout.FailpointRemoved),
		)},
	}
}

// takeOut has a person take a version out at the step, and let it come in again; where it waits then, it is approved.
func (s story) takeOut(step int, before string) error {
	eventually := func(f func() error) error { return world.Eventually(s.Context(), atMost, f) }
	if err := eventually(func() error { return s.at(step, v1alpha1.PhaseProgressing) }); err != nil {
		return err
	}
	live, err := s.rollout()
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	order := v1alpha1.RolloutOrder{Bundle: live.Status.Target.Digest, Abort: true, Reason: "INC-42", By: "robin", At: now, Until: now.Add(time.Hour)}
	return errors.Join(
		s.annotate(manifests.AnnotationOrder, order),
		eventually(func() error { return s.says("Aborted") }),
		eventually(func() error {
			return errors.Join(s.everywhere(before), s.alone(), s.asInGit())
		}),
		s.annotate(manifests.AnnotationOrder, nil),
		eventually(func() error { return s.at(step, v1alpha1.PhaseProgressing) }),
		s.approve(),
	)
}

// killer keeps an agent running that dies once at each of its points.
type killer struct {
	*testing.T
	sync.Mutex
	pending []string
	kills   int
}

// run starts agents until ctx ends.
func (k *killer) run(ctx context.Context) {
	for ctx.Err() == nil {
		k.Lock()
		points := strings.Join(k.pending, ",")
		k.Unlock()
		process, err := shared.StartAgent(ctx, world.AgentOptions{
			Name: "agent-kills", Failpoint: points, Args: []string{"--prometheus", "http://" + shared.metrics.Address},
		})
		if err != nil {
			k.Error(err)
			return
		}
		select {
		case <-ctx.Done():
			process.Kill()
			return
		case <-process.Done():
		}
		if err := k.died(process); err != nil {
			k.Error(err)
			return
		}
	}
}

// died takes away the points at which a process has died. Two Rollouts may have come to one each.
func (k *killer) died(process *world.Process) error {
	output, err := os.ReadFile(process.Log)
	if err != nil {
		return err
	}
	k.Lock()
	defer k.Unlock()
	before := len(k.pending)
	for line := range strings.Lines(string(output)) {
		if point, is := strings.CutPrefix(strings.TrimSpace(line), "failpoint: "); is {
			k.pending = slices.DeleteFunc(k.pending, func(other string) bool { return other == point })
		}
	}
	if k.kills++; len(k.pending) == before || !process.Killed() {
		return fmt.Errorf("the agent ended by itself; see %s", process.Log)
	}
	return nil
}

// point is what a kill of an app is called.
func (a app) point(kill string) string {
	name, where, is := strings.Cut(kill, "/")
	if is {
		where = "/" + where
	}
	return name + "@" + a.name + where
}

// rounds is how often a version comes in that may be killed at points that were missed before.
const rounds = 2

// TestKills kills the agent at each named point in each strategy that comes by it, all at the same time: a kill is one in the
// middle of whatever the others do. So it may happen that somebody else's kill takes an app past its own point; then another
// version comes in. What an app is past once more, some other has to be killed at.
func TestKills(t *testing.T) {
	table, start := courses(), time.Now()
	var apps []app
	missing, points := rollout.Failpoints(), 0
	for _, c := range table {
		apps = append(apps, c.app)
		if c.bad != "" {
			shared.dials.add(c.name)
			shared.dials.turn(c.name, c.bad, 9)
		}
		for _, kill := range c.kills {
			points++
			point, _, _ := strings.Cut(kill, "/")
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == point })
		}
	}
	if len(missing) > 0 {
		t.Errorf("nobody is killed at %v", missing)
	}
	calm := agent(t)
	begin(t, apps...)
	calm.Kill()
	t.Logf("all run after %.1f s", time.Since(start).Seconds())
	running, kills, unseen := map[string]string{}, 0, []string{}
	for _, c := range table {
		unseen = append(unseen, c.kills...)
	}
	for round := 1; len(table) > 0 && round <= rounds; round++ {
		var seen []string
		n := 0
		table, seen, n = aRound(t, round, table, running)
		kills += n
		unseen = slices.DeleteFunc(unseen, func(kill string) bool { return slices.Contains(seen, kill) })
	}
	for _, c := range table {
		t.Logf("%s was past %v each time", c.name, c.kills)
	}
	if len(unseen) > 0 {
		t.Errorf("no app was killed at %v", unseen)
	}
	longest, n := shared.seen.going(start)
	t.Logf("%d kills at %d points of %d courses in %.1f s; of %d canaries the slowest was deleted within %.1f s",
		kills, points, len(apps), time.Since(start).Seconds(), n, longest.Seconds())
}

// aRound brings a version into all apps of the table. It returns those that were not killed at all their points, with the rest
// of these, and at which points any was. running are the images that run, good ones but for what is said.
func aRound(t *testing.T, round int, table []course, running map[string]string) (rest []course, seen []string, kills int) {
	k, images := &killer{T: t}, map[string]string{}
	for _, behaviour := range []string{"ready", "crash"} {
		image, reference, err := version(fmt.Sprintf("%s in round %d", behaviour, round))
		if err == nil {
			err = push(t.Context(), image, reference)
		}
		if err != nil {
			t.Fatal(err)
		}
		images[behaviour] = reference
	}
	var changes []gitsource.Change
	come := func(c course) string {
		if c.crashes {
			return images["crash"]
		}
		return images["ready"]
	}
	for _, c := range table {
		changes = append(changes, c.use(come(c), ""))
		for _, kill := range c.kills {
			k.pending = append(k.pending, c.point(kill))
		}
	}
	start, commit := time.Now(), commit(t, fmt.Sprintf("Promote all, round %d", round), changes...)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { k.run(ctx) })
	orders := map[string]chan error{}
	for _, c := range table {
		if c.aborted > 0 {
			done := make(chan error, 1)
			orders[c.name] = done
			go func() { done <- story{t, c.app}.takeOut(c.aborted, cmp.Or(running[c.name], shared.good)) }()
		}
	}
	for _, c := range table {
		t.Run(fmt.Sprintf("%s %d", c.name, round), func(t *testing.T) {
			s := story{t, c.app}
			switch {
			case c.crashes || c.bad != "":
				s.comesBack(commit, come(c))
			case c.aborted > 0:
				s.must(<-orders[c.name])
				fallthrough
			default:
				s.stays(come(c))
				running[c.name] = come(c)
			}
			t.Logf("at rest after %.1f s", time.Since(start).Seconds())
		})
	}
	cancel()
	work.Wait()
	for _, c := range table {
		left := slices.DeleteFunc(slices.Clone(c.kills), func(kill string) bool { return !slices.Contains(k.pending, c.point(kill)) })
		at := slices.DeleteFunc(slices.Clone(c.kills), func(kill string) bool { return slices.Contains(left, kill) })
		t.Logf("%s was killed at %v, not at %v", c.name, at, left)
		seen = append(seen, at...)
		if len(left) > 0 {
			c.kills = left
			rest = append(rest, c)
		}
	}
	return rest, seen, k.kills
}
