// Package undo composes the commit that takes a failed version back, and signs the request for it.
//
// An agent that may push, an agent that may only ask, and the server that is
// asked all compose here: equal Facts and trees give equal bytes, so that the
// server can check that what it is about to push is what the agent signed. It is
// pure; the time is a Fact.
package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// Trees are the sides of the merge.
type Trees struct {
	Failed  gitsource.Tree // base: what the failed Set was rendered from
	Tip     gitsource.Tree // ours: what is there now
	Healthy gitsource.Tree // theirs: what to go back to
}

// Facts say what is taken back.
type Facts struct {
	Cluster, App, Environment string
	Path                      string             // of the Application, from the root; or wider
	Wide                      bool               // a person decides, so Path may be any folder, "." included
	Failed                    gitsource.ObjectID // commit
	Healthy                   gitsource.ObjectID // commit
	Holds                     []v1alpha1.HeldImage
	At                        time.Time // kept in whole seconds of UTC
}

// Evidence is why.
type Evidence struct {
	Verdict v1alpha1.Verdict
	// Restored are the image references that stand again afterwards.
	Restored []string
	Trace    string // of the failed version; may be empty
	// Why says what is in the way of a direct push; empty if nothing is.
	Why string
}

// Revert is the commit, apart from its parents.
type Revert struct {
	Changes []gitsource.Change // to the tip, sorted by path; none if the tip is as it should be
	Message string
	Author  gitsource.Person // and committer
}

// ConflictError says that the revert cannot be computed: others changed the same lines since.
type ConflictError struct{ Conflicts []revert.Conflict }

func (e *ConflictError) Error() string {
	parts := make([]string, 0, len(e.Conflicts))
	for _, c := range e.Conflicts {
		parts = append(parts, c.Path+" ("+c.Why+")")
	}
	return "revert: conflicts with later changes in " + strings.Join(parts, ", ") + " (a person has to decide)"
}

// ComposeRevert takes back what changed between Healthy and Failed below the
// Application's path, and holds the digests that failed. It fails with a
// *ConflictError, or when a tree cannot be read: then nothing may be pushed.
func ComposeRevert(trees Trees, facts Facts, evidence Evidence) (Revert, error) {
	message := Message(facts, evidence)
	changes, err := Changes(trees, facts, trailer.Parse(message).Verdict)
	if err != nil {
		return Revert{}, err
	}
	return Revert{Changes: changes, Message: message, Author: Author(facts)}, nil
}

// Changes computes the merge and the Holds. Verdict is what the message's
// trailer says, which is all of the evidence that a server gets to see.
func Changes(trees Trees, facts Facts, verdict string) ([]gitsource.Change, error) {
	if err := facts.Check(); err != nil {
		return nil, err
	}
	changes, conflicts, err := revert.Merge(trees.Failed, trees.Tip, trees.Healthy, facts.within())
	if err != nil {
		return nil, fmt.Errorf("revert of %s: %w", facts.Path, err)
	}
	if len(conflicts) > 0 {
		return nil, &ConflictError{Conflicts: conflicts}
	}
	hold, err := holdChange(trees.Tip, facts, verdict)
	if err != nil || hold == nil {
		return changes, err
	}
	changes = append(changes, *hold)
	slices.SortFunc(changes, func(a, b gitsource.Change) int { return strings.Compare(a.Path, b.Path) })
	return changes, nil
}

// within leaves Slipway's own files out: Holds and keys of others are not versions of anything.
func (f Facts) within() func(string) bool {
	below := revert.Within(f.Path)
	return func(path string) bool { return below(path) && !strings.HasPrefix(path+"/", ".slipway/") }
}

// Check says whether the names, the path and the digests may be part of a repo's paths and files.
func (f Facts) Check() error {
	err := errors.Join(
		environment.CheckName("cluster", f.Cluster),
		environment.CheckName("app", f.App),
		environment.CheckName("environment", f.Environment),
	)
	if !fs.ValidPath(f.Path) || f.Path == "." && !f.Wide || strings.HasPrefix(f.Path+"/", ".slipway/") {
		err = errors.Join(err, fmt.Errorf("path %q: an Application's own folder is what can be reverted", f.Path))
	}
	if f.At.IsZero() {
		err = errors.Join(err, errors.New("revert: the time is missing"))
	}
	for _, h := range f.Holds {
		if h.Name == "" {
			err = errors.Join(err, fmt.Errorf("hold on %s: the image's name is missing", h.Digest))
		}
		err = errors.Join(err, environment.CheckDigest(h.Digest))
	}
	return err
}

// holdChange returns the change to the file of Holds; nil if all are held already.
func holdChange(tip gitsource.Tree, facts Facts, verdict string) (*gitsource.Change, error) {
	path := environment.HoldPath(facts.Environment, facts.App)
	entry, err := tip.Entry(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var holds environment.Holds
	if entry.Kind != gitsource.Absent {
		content, err := tip.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if holds, err = environment.ParseHolds(content); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	before := len(holds.All())
	for _, h := range facts.Holds {
		if _, held := holds.Find(h.Name, h.Digest); held {
			continue
		}
		holds = holds.With(environment.Hold{
			Image: h.Name, Digest: h.Digest, Reason: "failed in cluster " + facts.Cluster + "; reverted automatically",
			Verdict: verdict, Since: facts.At, By: Author(facts).Name,
		})
	}
	if len(holds.All()) == before {
		return nil, nil
	}
	return &gitsource.Change{Path: path, Content: holds.Bytes()}, nil
}

// Author is who a revert commit is by.
func Author(f Facts) gitsource.Person {
	return gitsource.Person{Name: "slipway-agent " + f.Cluster, Email: f.Cluster + "@agents.slipway.dev", When: f.At.UTC().Truncate(time.Second)}
}

// Left returns the digests of before that after has no more: what a Hold keeps out.
func Left(before, after []edit.Image) []v1alpha1.HeldImage {
	stays := map[string]bool{"": true}
	for _, i := range after {
		stays[i.Digest] = true
	}
	var out []v1alpha1.HeldImage
	for _, i := range before {
		if !stays[i.Digest] {
			stays[i.Digest] = true
			out = append(out, v1alpha1.HeldImage{Name: i.Repository(), Digest: i.Digest})
		}
	}
	return out
}
