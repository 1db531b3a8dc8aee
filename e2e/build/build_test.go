package build

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

var errNotPromoted = errors.New("not promoted yet")

// yard is a world in which the sample service is built.
type yard struct {
	testing.TB
	*world.World
	source *world.Repository
	build  world.Build
	server *world.Server

	version *atomic.Int64 // of the newest push
}

// of is the same yard for a part of the test.
func (y *yard) of(t testing.TB) *yard {
	part := *y
	part.TB = t
	return &part
}

func newYard(t testing.TB, o world.BuildOptions) *yard {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-build-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(t.Context(), world.Options{Dir: dir, Node: cluster.NodeNone, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	y := &yard{TB: t, World: w, version: &atomic.Int64{}}
	y.version.Store(1)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(y.said())
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	image, err := w.Sample(t.Context(), "0", "ready")
	y.must(err)
	fleet, err := world.Fleet(t.Context(), image)
	y.must(err)
	_, err = w.Commit(t.Context(), "Start the fleet", fleet...)
	y.must(err)
	y.source, err = w.Source(t.Context(), "shop")
	y.must(err)
	o.Sources = append(o.Sources, world.SourceOf("shop", y.source))
	y.build, err = w.NewBuild(t.Context(), o)
	y.must(err)
	return y
}

func (y *yard) must(err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

// start starts the server.
func (y *yard) start(failpoint string) {
	y.Helper()
	var err error
	y.server, err = y.StartServer(y.Context(), world.ServerOptions{Config: y.build.Config, Failpoint: failpoint})
	y.must(err)
}

// said is the end of what the server has logged.
func (y *yard) said() string {
	if y.server == nil {
		return ""
	}
	content, err := os.ReadFile(y.server.Log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-8000):])
}

// push commits to the source.
func (y *yard) push(message string, changes ...gitsource.Change) gitsource.ObjectID {
	y.Helper()
	id, err := y.source.Commit(y.Context(), message, changes...)
	y.must(err)
	return id
}

// promoted waits for the commit that brings what was built from a commit to dev, and returns its trailer.
func (y *yard) promoted(source gitsource.ObjectID) trailer.Change {
	y.Helper()
	var found trailer.Change
	y.must(world.Eventually(y.Context(), patience, func() error {
		changes, err := y.promotions(source)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			return errNotPromoted
		}
		found = changes[0]
		return nil
	}))
	return found
}

// promotions are the changes of the environment repo that name a source commit.
func (y *yard) promotions(source gitsource.ObjectID) ([]trailer.Change, error) {
	commits, err := y.World.Log(y.Context(), 200)
	if err != nil {
		return nil, err
	}
	var found []trailer.Change
	for _, commit := range commits {
		for _, change := range trailer.Parse(commit.Message).Changes {
			if strings.HasSuffix(change.Source, "@"+string(source)) {
				found = append(found, change)
			}
		}
	}
	return found, nil
}

func (y *yard) requirement() policy.Requirement {
	return policy.Requirement{
		Policy: "test", Keys: []policy.Key{{Name: "server", PEM: y.build.PublicKey}},
		Provenance: &policy.Provenance{Sources: []string{y.source.URL}},
	}
}

// TestFromPushToPromotion is one test, because most of its time goes into the first compilation.
func TestFromPushToPromotion(t *testing.T) {
	y := newYard(t, world.BuildOptions{Jobs: 2})
	y.start("")
	files, err := y.ShopSource(t.Context())
	y.must(err)
	start := time.Now()
	commit := y.push("Begin the shop", files...)
	change := y.promoted(commit)
	t.Logf("promoted %.1f s after the push", time.Since(start).Seconds())
	if change.App != "shop" || change.Environment != "dev" || change.Run == "" || change.Trace == "" || !strings.HasPrefix(change.Image, y.ShopImage()+"@sha256:") {
		t.Errorf("trailer %s", change)
	}
	content, err := y.File(t.Context(), "apps/shop/dev/kustomization.yaml")
	y.must(err)
	if _, digest, _ := strings.Cut(change.Image, "@"); !strings.Contains(content, digest) || !strings.Contains(content, y.ShopImage()) {
		t.Errorf("dev says\n%s", content)
	}
	evidence, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), change.Image, y.requirement())
	y.must(err)
	if evidence.Commit != string(commit) || evidence.Run != change.Run || !strings.HasPrefix(y.source.URL, evidence.Source) {
		t.Errorf("evidence %+v", evidence)
	}
	start = time.Now()
	second := y.promoted(y.push("Begin another version", y.next()))
	t.Logf("the next one %.1f s after its push", time.Since(start).Seconds())
	if second.Image == change.Image {
		t.Error("another version has the same digest")
	}
	y.must(y.server.Stop(time.Minute))
	if t.Run("the server is killed", y.serverKilled) {
		t.Run("a worker is killed", y.workerKilled)
	}
}
