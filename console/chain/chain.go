// Package chain joins what Git and the cluster know of one change into one chain.
//
// It is pure. Content decides: which commit put which digest into which
// Environment is read from the trees; trailers only add what a tree cannot say,
// such as the source commit.
package chain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// Commit is one of the environment repo, with what its tree changed.
type Commit struct {
	gitsource.Commit
	// Changes of image entries between the first parent and the commit.
	Changes []ImageChange
	// Merged are the commits that a merge brought in, newest first.
	Merged []gitsource.Commit
}

// ImageChange is one image entry of an app in an Environment.
type ImageChange struct {
	App, Environment string
	Before, After    string // references; empty for none
}

// Cluster is what one Application says of itself.
type Cluster struct {
	Name   string // of the Application; empty for an app that only Git knows
	App    string
	Spec   v1alpha1.ApplicationSpec
	Status v1alpha1.ApplicationStatus
}

// In is all that is known.
type In struct {
	Commits  []Commit // of the followed branch, newest first
	Clusters []Cluster
	Holds    map[string]environment.Holds // by environment.HoldPath
	Runs     []builder.Run                // that are known; where one is not, its trailers stand for it
}

// Stage is one line of a chain.
type Stage struct {
	Stage  string    `json:"stage"`
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	Detail string    `json:"detail"`
	// Evidence is that of a revert commit, where it has any.
	Evidence *undo.Record `json:"evidence,omitempty"`
}

// Of returns the chain of a subject: a commit id (of the environment repo or a
// source), a run, a digest ("sha256:..."), a trace id, an app or an Application. What
// leads to an image and from it, through all Environments, is one chain, whichever
// link of it is asked for. It is ordered by time; empty if nothing is known.
func Of(in In, subject string) []Stage {
	digests := digestsOf(in, subject)
	var stages []Stage
	for i := len(in.Commits) - 1; i >= 0; i-- {
		commit := in.Commits[i]
		if !stepsBack(in, commit) && (concerns(in, commit, subject) || brings(commit, digests)) {
			stages = append(stages, promotion(in, commit, subject, digests)...)
		}
	}
	stages = append(stages, runs(in, subject, digests)...)
	slices.SortStableFunc(stages, func(a, b Stage) int { return a.At.Compare(b.At) })
	return slices.DeleteFunc(stages, told())
}

// told reports what was there before. A source and a run are told once, when they
// were first heard of.
func told() func(Stage) bool {
	seen := map[Stage]bool{}
	return func(s Stage) bool {
		if s.Stage == "source" || s.Stage == "run" {
			s.At, s.Detail = time.Time{}, ""
		}
		s.Evidence = nil // one commit has one
		before := seen[s]
		seen[s] = true
		return before
	}
}

// lines are the trailers of a commit and of those that it merged: a Git host's own merges have none.
func lines(commit Commit) []trailer.Change {
	out := trailer.Parse(commit.Message).Changes
	for _, merged := range commit.Merged {
		out = append(out, trailer.Parse(merged.Message).Changes...)
	}
	return out
}

func isRevert(commit Commit) bool { return len(trailer.Parse(commit.Message).Reverts) > 0 }

// concerns reports whether a promotion belongs to the chain of a subject.
func concerns(in In, commit Commit, subject string) bool {
	if string(commit.ID) == subject {
		return true
	}
	for _, merged := range commit.Merged {
		if string(merged.ID) == subject {
			return true
		}
	}
	for _, change := range commit.Changes {
		if about(in, subject, change) || strings.HasPrefix(subject, "sha256:") && strings.HasSuffix(change.After, "@"+subject) {
			return true
		}
	}
	if slices.ContainsFunc(lines(commit), func(line trailer.Change) bool { return names(line, subject) }) {
		return true
	}
	for _, cluster := range in.Clusters {
		for _, entry := range cluster.Status.History {
			if entry.TraceID == subject && strings.HasSuffix(entry.Revision, string(commit.ID)) {
				return true
			}
		}
	}
	for _, revert := range reverts(in, commit) {
		if string(revert.ID) == subject {
			return true
		}
	}
	return false
}

// reverts are the commits that take one back: they name it, or they take an
// image of it out again and say that they revert, or its image is held since.
// An agent that fetched several commits at once names the newest of them, and a
// squash merge loses what was named.
func reverts(in In, commit Commit) []Commit {
	var found []Commit
	for _, other := range in.Commits {
		named := slices.Contains(trailer.Parse(other.Message).Reverts, commit.ID)
		if named && (len(commit.Changes) > 0 || len(other.Changes) == 0) || slices.ContainsFunc(commit.Changes, func(c ImageChange) bool { return takesBack(in, other, commit, c) }) {
			found = append(found, other)
		}
	}
	return found
}

// takesBack reports whether other is what ended a change of commit, and no newer version but a step back.
func takesBack(in In, other, commit Commit, change ImageChange) bool {
	if end := ended(in, commit, change); end < 0 || in.Commits[end].ID != other.ID {
		return false
	}
	_, digest, _ := strings.Cut(change.After, "@")
	_, held := in.Holds[environment.HoldPath(change.Environment, change.App)].Find("", digest)
	return held || isRevert(other)
}

// ended is the index of the first commit after it that takes a changed image out again; -1 while it stands.
func ended(in In, commit Commit, change ImageChange) int {
	for i := position(in, commit.ID) - 1; i >= 0; i-- {
		for _, later := range in.Commits[i].Changes {
			if later.App == change.App && later.Environment == change.Environment && later.Before == change.After {
				return i
			}
		}
	}
	return -1
}

func position(in In, id gitsource.ObjectID) int {
	return slices.IndexFunc(in.Commits, func(c Commit) bool { return c.ID == id })
}

// promotion is the chain of one commit.
func promotion(in In, commit Commit, subject string, digests map[string]bool) []Stage {
	var stages []Stage
	for _, line := range lines(commit) {
		if len(digests) > 0 && !digests[digestOf(line.Image)] {
			continue // of another app in the same commit, or replaced before it was merged
		}
		if line.Source != "" {
			stages = append(stages, Stage{Stage: "source", ID: line.Source, At: commit.Author.When, Detail: line.App})
		}
		if line.Run != "" {
			stages = append(stages, Stage{Stage: "run", ID: line.Run, At: commit.Author.When, Detail: line.Image})
		}
	}
	for _, merged := range slices.Backward(commit.Merged) {
		stages = append(stages, Stage{Stage: "requested", ID: string(merged.ID), At: merged.Author.When, Detail: who(merged)})
	}
	stages = append(stages, Stage{Stage: "committed", ID: string(commit.ID), At: commit.Committer.When, Detail: who(commit.Commit)})
	for _, change := range commit.Changes {
		if isApp(in, subject) && !about(in, subject, change) || len(digests) > 0 && !digests[digestOf(change.After)] {
			continue
		}
		stages = append(stages, Stage{
			Stage: "promoted", ID: change.After, At: commit.Committer.When, Detail: fmt.Sprintf("%s in %s, was %s", change.App, change.Environment, short(change.Before)),
		})
	}
	for _, cluster := range in.Clusters {
		stages = append(stages, applied(in, cluster, commit)...)
	}
	for _, revert := range reverts(in, commit) {
		evidence, _ := undo.ParseRecord(revert.Message)
		stages = append(stages, Stage{Stage: "reverted", ID: string(revert.ID), At: revert.Committer.When, Detail: who(revert.Commit), Evidence: evidence})
		stages = append(stages, held(in, commit, revert)...)
		stages = append(stages, restored(in, revert)...)
	}
	return stages
}

// isApp reports whether a subject is an app or an Application.
func isApp(in In, subject string) bool {
	return slices.ContainsFunc(in.Clusters, func(c Cluster) bool { return c.App == subject || c.Name == subject })
}

// about reports whether a subject is the app of a change, or the Application that follows it.
func about(in In, subject string, change ImageChange) bool {
	return change.App == subject || slices.ContainsFunc(in.Clusters, func(c Cluster) bool {
		return c.Name == subject && c.App == change.App && c.Spec.Environment == change.Environment
	})
}

// applied is what a cluster did with the commit.
func applied(in In, cluster Cluster, commit Commit) []Stage {
	var stages []Stage
	for _, entry := range cluster.Status.History {
		if !carries(in, cluster, entry, commit) {
			continue
		}
		if a := cluster.Status.Attempted; a != nil && a.At != nil && a.SetDigest == entry.SetDigest {
			stages = append(stages, Stage{Stage: "fetched", ID: a.Revision, At: a.At.Time, Detail: cluster.Name})
		}
		stages = append(stages, Stage{Stage: "applied", ID: entry.SetDigest, At: entry.AppliedAt.Time, Detail: cluster.Name})
		if v := entry.Verdict; v != nil {
			id := v.Bundle
			if id == "" {
				id = entry.SetDigest
			}
			stages = append(stages, Stage{Stage: "verdict", ID: id, At: v.At.Time, Detail: fmt.Sprintf("%s: %s %s: %s", cluster.Name, v.Outcome, v.Reason, v.Message)})
		}
		for _, mark := range cluster.Status.Marks {
			if mark.SetDigest == entry.SetDigest {
				stages = append(stages, Stage{Stage: "marked", ID: mark.SetDigest, At: mark.Verdict.At.Time, Detail: cluster.Name + ": this Set is not applied again"})
			}
		}
	}
	return stages
}

// carries reports whether a Set was rendered from the commit, or from a later
// one at which the commit's image still stood: agents fetch tips, not each commit.
func carries(in In, cluster Cluster, entry v1alpha1.HistoryEntry, commit Commit) bool {
	if strings.HasSuffix(entry.Revision, ":"+string(commit.ID)) {
		return true
	}
	revision, err := gitsource.ParseRevision(entry.Revision)
	if err != nil {
		return false
	}
	at := position(in, revision.ID)
	return at >= 0 && at < position(in, commit.ID) && slices.ContainsFunc(commit.Changes, func(c ImageChange) bool {
		return c.App == cluster.App && c.Environment == cluster.Spec.Environment && ended(in, commit, c) < at && contains(entry.Images, c.After)
	})
}

// contains looks for a digest, since images may be renamed on the way, else for the reference.
func contains(images []string, reference string) bool {
	_, digest, pinned := strings.Cut(reference, "@")
	return slices.ContainsFunc(images, func(image string) bool {
		return image == reference || pinned && strings.HasSuffix(image, "@"+digest)
	})
}

// held are the Holds that stand on what the commit brought in.
func held(in In, commit, revert Commit) []Stage {
	var stages []Stage
	for _, change := range commit.Changes {
		path := environment.HoldPath(change.Environment, change.App)
		_, digest, _ := strings.Cut(change.After, "@")
		for _, hold := range in.Holds[path].All() {
			if hold.Digest == digest {
				stages = append(stages, Stage{Stage: "held", ID: path, At: revert.Committer.When, Detail: hold.Digest + " " + hold.Reason})
			}
		}
	}
	return stages
}

// restored is where a cluster says that it is healthy with what the revert brought back.
func restored(in In, revert Commit) []Stage {
	var stages []Stage
	for _, cluster := range in.Clusters {
		last := cluster.Status.LastRevert
		if last == nil || last.Commit != string(revert.ID) {
			continue
		}
		detail := cluster.Name + ": Git and cluster agree again"
		if !last.Settled {
			detail = cluster.Name + ": not healthy yet"
		}
		stages = append(stages, Stage{Stage: "restored", ID: last.HealthySet, At: last.At.Time, Detail: detail})
	}
	return stages
}

func who(commit gitsource.Commit) string {
	subject, _, _ := strings.Cut(commit.Message, "\n")
	return commit.Author.Name + ": " + subject
}

func short(reference string) string {
	name, digest, found := strings.Cut(reference, "@")
	if !found {
		if reference == "" {
			return "not there"
		}
		return reference
	}
	return name[strings.LastIndexByte(name, '/')+1:] + "@" + digest[:min(len(digest), 19)]
}
