package build

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder/run"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// patience is how long a run may take, with what has to be done again.
const patience = 8 * time.Minute

// serverKilled: the server, with its queue and its worker, dies at each named point. Whoever starts again ends the run:
// one promotion, of a signed image.
func (y *yard) serverKilled(t *testing.T) {
	for _, point := range []string{
		run.FailpointDelivery, run.FailpointRecord, run.FailpointHint, run.FailpointReported, run.FailpointAttested, run.FailpointVerdict,
		run.FailpointBegun, run.FailpointPromoted, run.FailpointLast, run.FailpointFinished,
		sigstore.FailpointSBOM, sigstore.FailpointProvenance, sigstore.FailpointSignature,
	} {
		t.Run(point, func(t *testing.T) {
			y := y.of(t)
			y.start(point)
			commit := y.push("Die at "+point, y.next())
			y.dies(y.server.Process)
			if !y.server.Killed() {
				t.Fatalf("it ended by itself:\n%s", y.said())
			}
			y.start("")
			start := time.Now()
			y.ends(commit)
			t.Logf("promoted %.1f s after the restart", time.Since(start).Seconds())
			y.must(y.server.Stop(time.Minute))
		})
	}
}

// workerKilled: a worker apart dies at each point of a job's life, and another one takes over.
func (y *yard) workerKilled(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	apart := y.of(t)
	apart.build, err = y.NewBuild(t.Context(), world.BuildOptions{QueueListen: address, Sources: []map[string]any{world.SourceOf("shop", y.source)}})
	apart.must(err)
	apart.start("")
	for _, point := range []string{
		run.FailpointLease, run.FailpointClaim, run.FailpointCheckout, run.FailpointRun, run.FailpointStep, run.FailpointBuild,
		run.FailpointPush, run.FailpointReport,
	} {
		t.Run(point, func(t *testing.T) {
			y := apart.of(t)
			doomed, err := y.StartWorker(t.Context(), y.build, "doomed", point)
			y.must(err)
			commit := y.push("Die at "+point, y.next())
			y.dies(doomed)
			if !doomed.Killed() {
				t.Fatal("it ended by itself")
			}
			start := time.Now()
			other, err := y.StartWorker(t.Context(), y.build, "other", "")
			y.must(err)
			y.ends(commit)
			t.Logf("promoted %.1f s after the other one started", time.Since(start).Seconds())
			other.Kill()
		})
	}
}

// next is another version than all before.
func (y *yard) next() gitsource.Change {
	y.version.Add(1)
	return world.ShopVersion(fmt.Sprint(y.version.Load()))
}

func (y *yard) dies(p *world.Process) {
	y.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		y.Fatalf("%s does not come to its failpoint\n%s", p.Name, y.said())
	}
}

// ends waits until what was built from a commit is promoted, and holds that this happened once, with a signed image.
func (y *yard) ends(commit gitsource.ObjectID) {
	y.Helper()
	change := y.promoted(commit)
	// One more commit through the same queue: what the first one still had to do is done by then.
	last := y.promoted(y.push("Look again", world.Write("again.txt", string(commit))))
	if last.Run == change.Run {
		y.Errorf("two commits, one run %s", last.Run)
	}
	changes, err := y.promotions(commit)
	y.must(err)
	if len(changes) != 1 {
		y.Errorf("promoted %d times: %v", len(changes), changes)
	}
	evidence, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(y.Context(), change.Image, y.requirement())
	y.must(err)
	if evidence.Commit != string(commit) || !strings.HasPrefix(change.Run, "2") {
		y.Errorf("evidence %+v of %s", evidence, change)
	}
}
