package chain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
)

func id(n int) gitsource.ObjectID { return gitsource.ObjectID(fmt.Sprintf("%040x", n)) }

func image(n int) string { return fmt.Sprintf("example.com/shop@sha256:%064x", n) }

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func at(minute int) time.Time { return time.Date(2026, 11, 1, 8, minute, 0, 0, time.UTC) }

func revision(n int) string { return "refs/heads/main@sha1:" + string(id(n)) }

func commit(n int, message string, block trailer.Block, changes ...chain.ImageChange) chain.Commit {
	who := gitsource.Person{Name: "Ada", When: at(n)}
	return chain.Commit{
		Commit:  gitsource.Commit{ID: id(n), Author: who, Committer: who, Message: trailer.Append(message+"\n", block)},
		Changes: changes,
	}
}

func change(before, after int) chain.ImageChange {
	return chain.ImageChange{App: "shop", Environment: "production", Before: image(before), After: image(after)}
}

// failed is the story of image 2: merged by commit 2, applied from appliedFrom, failed, reverted by commit 5.
func failed(appliedFrom int, revert trailer.Block) chain.In {
	holds := environment.Holds{}.With(environment.Hold{Image: "example.com/shop", Digest: digest(2), Reason: "not available", Since: at(5), By: "agent"})
	fail := &v1alpha1.Verdict{Outcome: v1alpha1.VerdictFail, Reason: "DeadlineExceeded", Message: "1 of 3 available", At: metav1.Time{Time: at(5)}, Bundle: digest(22)}
	pass := &v1alpha1.Verdict{Outcome: v1alpha1.VerdictPass, Reason: "Healthy", Message: "all objects are healthy", At: metav1.Time{Time: at(1)}}
	merged := commit(2, "Merge promote/production/shop", trailer.Block{}, change(1, 2))
	merged.Merged = []gitsource.Commit{{ID: id(9), Author: gitsource.Person{Name: "Bob", When: at(2)}, Message: "Promote shop to production"}}
	return chain.In{
		Commits: []chain.Commit{
			commit(5, "Revert", revert, change(2, 1)),
			commit(4, "Write the runbook", trailer.Block{}),
			commit(3, "Write a README", trailer.Block{}),
			merged,
			commit(1, "Promote shop", trailer.Block{Changes: []trailer.Change{{
				App: "shop", Environment: "production", Image: image(1), Run: "run-1", Trace: "0123", Source: "https://git.example/shop.git@" + string(id(77)),
			}}}, change(0, 1)),
		},
		Clusters: []chain.Cluster{{
			Name: "shop-production", App: "shop", Spec: v1alpha1.ApplicationSpec{Environment: "production"},
			Status: v1alpha1.ApplicationStatus{
				History: []v1alpha1.HistoryEntry{
					{Revision: revision(appliedFrom), SetDigest: digest(32), Images: []string{image(2)}, AppliedAt: metav1.Time{Time: at(4)}, Verdict: fail},
					{Revision: revision(1), SetDigest: digest(31), Images: []string{image(1)}, AppliedAt: metav1.Time{Time: at(1)}, Verdict: pass},
				},
				Marks:      []v1alpha1.Mark{{SetDigest: digest(32), Revision: revision(appliedFrom), Verdict: *fail}},
				LastRevert: &v1alpha1.RevertRecord{FailedSet: digest(32), HealthySet: digest(31), Commit: string(id(5)), Settled: true, At: metav1.Time{Time: at(6)}},
			},
		}},
		Holds: map[string]environment.Holds{environment.HoldPath("production", "shop"): holds},
	}
}

func names(stages []chain.Stage) string {
	var out []string
	for _, stage := range stages {
		out = append(out, stage.Stage)
	}
	return strings.Join(out, " ")
}

const whole = "requested committed promoted applied verdict marked reverted held restored"

func TestOf(t *testing.T) {
	named := trailer.Block{Reverts: []gitsource.ObjectID{id(2)}, Verdict: "Fail"}
	batched := trailer.Block{Reverts: []gitsource.ObjectID{id(4)}, Verdict: "Fail"}
	for name, c := range map[string]struct {
		in      chain.In
		subject string
		want    string
	}{
		"the merge":                        {failed(2, named), string(id(2)), whole},
		"the request":                      {failed(2, named), string(id(9)), whole},
		"the revert":                       {failed(2, named), string(id(5)), whole},
		"the image":                        {failed(2, named), digest(2), whole},
		"fetched with later commits":       {failed(4, batched), string(id(2)), whole},
		"the revert of several commits":    {failed(4, batched), string(id(5)), whole},
		"trailers lost by a squash merge":  {failed(4, trailer.Block{}), string(id(2)), whole},
		"an earlier version":               {failed(2, named), string(id(1)), "source run committed promoted applied verdict"},
		"a trace id":                       {failed(2, named), "0123", "source run committed promoted applied verdict"},
		"the commit it was built from":     {failed(2, named), string(id(77)), "source run committed promoted applied verdict"},
		"another Application":              {failed(2, named), "shop-dev", ""},
		"a commit that promotes nothing":   {failed(4, named), string(id(3)), "committed"},
		"an image that is nowhere":         {failed(2, named), digest(8), ""},
		"nothing that could be a subject":  {failed(2, named), "x", ""},
		"a repo and a cluster without any": {chain.In{}, string(id(1)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := chain.Of(c.in, c.subject)
			if names(got) != c.want {
				t.Errorf("got  %s\nwant %s\n%+v", names(got), c.want, got)
			}
			if !slices.IsSortedFunc(got, func(a, b chain.Stage) int { return a.At.Compare(b.At) }) {
				t.Errorf("not in order of time: %+v", got)
			}
			for _, stage := range got {
				if stage.ID == "" || stage.At.IsZero() || stage.Detail == "" {
					t.Errorf("a stage has an identifier, a time and a word: %+v", stage)
				}
			}
		})
	}
}

// A newer version is not a revert, and what was applied after it belongs to it.
func TestNewerVersionIsNoRevert(t *testing.T) {
	in := failed(2, trailer.Block{})
	in.Holds = nil
	in.Commits[0] = commit(5, "Promote shop", trailer.Block{}, change(2, 3))
	in.Clusters[0].Status.LastRevert = nil
	if got := names(chain.Of(in, string(id(2)))); got != "requested committed promoted applied verdict marked" {
		t.Errorf("got %s", got)
	}
}

// A person's way back names nothing; the next version is none, although it replaces an image that is held.
func TestRollbackAndRollForward(t *testing.T) {
	in := failed(2, trailer.Block{})
	in.Commits[0].Message = "Roll shop in production back\n"
	in.Clusters[0].Status = v1alpha1.ApplicationStatus{}
	const want = "requested committed promoted reverted held"
	for name, subject := range map[string]string{"merge": string(id(2)), "rollback": string(id(5)), "image": digest(2)} {
		if got := names(chain.Of(in, subject)); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	in.Commits[0].Changes[0].After = image(3)
	if got := names(chain.Of(in, digest(3))); got != "committed promoted" {
		t.Errorf("the next version: %s", got)
	}
}

func TestApplication(t *testing.T) {
	got := names(chain.Of(failed(2, trailer.Block{Reverts: []gitsource.ObjectID{id(2)}}), "shop-production"))
	if want := "source run committed promoted applied verdict " + whole; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want first %s", got, want)
	}
}

func TestFetched(t *testing.T) {
	in := failed(2, trailer.Block{})
	in.Clusters[0].Status.Attempted = &v1alpha1.SetRef{Revision: revision(2), SetDigest: digest(32), At: &metav1.Time{Time: at(3)}}
	if got := names(chain.Of(in, string(id(2)))); got != "requested committed promoted fetched applied verdict marked reverted held restored" {
		t.Errorf("got %s", got)
	}
}

// story is a build that goes to dev by a batch, to production by a request merged on the host, and back.
func story() chain.In {
	line := func(app, env string, n int) trailer.Change {
		return trailer.Change{
			App: app, Environment: env, Image: image(n), Source: "https://git.example/shop@" + string(id(100+n)), Run: fmt.Sprintf("run-%d", n), Trace: fmt.Sprintf("trace-%d", n),
		}
	}
	put := func(app, env string, before, after int) chain.ImageChange {
		return chain.ImageChange{App: app, Environment: env, Before: image(before), After: image(after)}
	}
	merge := commit(4, "Merge pull request #7", trailer.Block{}, put("shop", "production", 1, 2))
	merge.Merged = []gitsource.Commit{{
		ID: id(9), Author: gitsource.Person{Name: "slipway-server", When: at(3)},
		Message: trailer.Append("Promote shop to production\n", trailer.Block{Changes: []trailer.Change{line("shop", "production", 2)}}),
	}}
	return chain.In{
		Commits: []chain.Commit{
			commit(6, "Revert shop", trailer.Block{Reverts: []gitsource.ObjectID{id(4)}, Verdict: "Fail Errors: 5 of 10"}, put("shop", "production", 2, 1)),
			merge,
			commit(2, "Promote 2 images", trailer.Block{Changes: []trailer.Change{line("shop", "dev", 2), line("cart", "dev", 3)}}, put("shop", "dev", 1, 2), put("cart", "dev", 1, 3)),
			commit(1, "Begin", trailer.Block{}, chain.ImageChange{App: "shop", Environment: "production", After: image(1)}),
		},
		Runs: []builder.Run{{
			ID: "run-2", Trace: "trace-2", Repo: builder.Repo{Name: "shop"}, Revision: gitsource.Revision{URL: "https://git.example/shop", ID: id(102)}, Pipeline: "build", State: builder.Succeeded,
			Trigger: builder.Trigger{Kind: "push", ReceivedAt: at(0)}, Created: at(0),
			Jobs: []builder.Job{{Name: "image", State: builder.Succeeded, Finished: at(1), Images: []builder.Image{{Repository: "example.com/shop", Digest: digest(2)}}}},
		}},
	}
}

// TestOneChain: whichever link is asked for, the chain is the same, and another app in the same commit is no part of it.
func TestOneChain(t *testing.T) {
	in := story()
	want := chain.Of(in, digest(2))
	if got, all := names(want), "source run built attested committed promoted requested committed promoted reverted"; got != all {
		t.Fatalf("got  %s\nwant %s\n%+v", got, all, want)
	}
	for _, stage := range want {
		if strings.Contains(fmt.Sprint(stage), "cart") || strings.Contains(stage.ID, digest(3)) {
			t.Errorf("of another app: %+v", stage)
		}
	}
	for name, subject := range map[string]string{
		"source": string(id(102)), "run": "run-2", "trace": "trace-2", "request": string(id(9)), "merge": string(id(4)), "revert": string(id(6)),
	} {
		if got := chain.Of(in, subject); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
	// A run that has promoted nothing is a chain too.
	in.Commits = nil
	if got := names(chain.Of(in, "run-2")); got != "source run built attested" {
		t.Error(got)
	}
}

// TestEvidence: what a revert was judged on is a part of the chain, once, however often the revert is named.
func TestEvidence(t *testing.T) {
	line := `{"schema":"slipway.dev/evidence/v1","cluster":"eu","app":"shop","verdict":{"outcome":"Fail","reason":"Crashing","message":"m","at":null}}`
	found := 0
	for _, stage := range chain.Of(failed(2, trailer.Block{Reverts: []gitsource.ObjectID{id(2), id(3)}, Evidence: line}), "shop") {
		if stage.Evidence == nil {
			continue
		}
		if found++; stage.Stage != "reverted" || stage.Evidence.Cluster != "eu" || stage.Evidence.Verdict.Reason != "Crashing" {
			t.Errorf("%+v", stage)
		}
	}
	if found != 1 {
		t.Errorf("the evidence is told %d times", found)
	}
}
