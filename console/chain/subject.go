package chain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource/trailer"
)

// names reports whether a subject is the trace, the run or the source commit of a trailer.
func names(line trailer.Change, subject string) bool {
	return line.Trace == subject || line.Run == subject || line.Source != "" && strings.HasSuffix(line.Source, "@"+subject)
}

// digestOf returns that of a reference; empty if it has none.
func digestOf(reference string) string {
	_, digest, _ := strings.Cut(reference, "@")
	return digest
}

// digestsOf returns the images that a subject stands for: the chain is theirs. None
// for an app, whose chain is all that happened to it.
func digestsOf(in In, subject string) map[string]bool {
	found := map[string]bool{}
	if isApp(in, subject) {
		return found
	}
	if strings.HasPrefix(subject, "sha256:") {
		found[subject] = true
		return found
	}
	for _, run := range in.Runs {
		if isRun(run, subject) {
			for _, image := range images(run) {
				found[image.Digest] = true
			}
		}
	}
	for _, commit := range in.Commits {
		if stepsBack(in, commit) || !concerns(in, commit, subject) {
			continue
		}
		for _, change := range selected(in, commit, subject) {
			found[digestOf(change.After)] = true
		}
	}
	delete(found, "")
	return found
}

// selected are the changes of a commit that a subject is about: those whose trailers
// name it, those that it takes back, or else all.
func selected(in In, commit Commit, subject string) []ImageChange {
	var out []ImageChange
	for _, change := range commit.Changes {
		named := slices.ContainsFunc(lines(commit), func(line trailer.Change) bool {
			return names(line, subject) && digestOf(line.Image) == digestOf(change.After)
		})
		taken := slices.ContainsFunc(in.Commits, func(other Commit) bool {
			return string(other.ID) == subject && other.ID != commit.ID && takesBack(in, other, commit, change)
		})
		if named || taken {
			out = append(out, change)
		}
	}
	if len(out) > 0 {
		return out
	}
	return commit.Changes
}

// brings reports whether a commit put one of the images somewhere.
func brings(commit Commit, digests map[string]bool) bool {
	return slices.ContainsFunc(commit.Changes, func(c ImageChange) bool { return digests[digestOf(c.After)] })
}

// stepsBack reports whether a commit reverts, by its own word or because what it brings
// instead of an image that is held since has been there before.
func stepsBack(in In, commit Commit) bool {
	return isRevert(commit) || slices.ContainsFunc(commit.Changes, func(back ImageChange) bool {
		return wasThere(in, commit, back) && slices.ContainsFunc(in.Commits, func(other Commit) bool {
			return slices.ContainsFunc(other.Changes, func(c ImageChange) bool {
				return c.App == back.App && c.Environment == back.Environment && c.After == back.Before && takesBack(in, commit, other, c)
			})
		})
	})
}

// wasThere reports whether an older commit brought what a change brings, or replaced it.
func wasThere(in In, commit Commit, change ImageChange) bool {
	return slices.ContainsFunc(in.Commits[position(in, commit.ID)+1:], func(older Commit) bool {
		return slices.ContainsFunc(older.Changes, func(c ImageChange) bool {
			return c.App == change.App && c.Environment == change.Environment && (c.After == change.After || c.Before == change.After)
		})
	})
}

// isRun reports whether a subject is a run, its trace or the commit that it was made for.
func isRun(run builder.Run, subject string) bool {
	return subject != "" && (run.ID == subject || run.Trace == subject || string(run.Revision.ID) == subject)
}

func images(run builder.Run) []builder.Image {
	var out []builder.Image
	for _, job := range run.Jobs {
		out = append(out, job.Images...)
	}
	return out
}

// runs are the stages of the runs that a subject is about, or that made one of the images.
func runs(in In, subject string, digests map[string]bool) []Stage {
	var stages []Stage
	for _, run := range in.Runs {
		made := slices.ContainsFunc(images(run), func(i builder.Image) bool { return digests[i.Digest] })
		if !made && !isRun(run, subject) && !isApp(in, subject) || isApp(in, subject) && !promotes(run, subject) {
			continue
		}
		begun := run.Trigger.ReceivedAt
		if begun.IsZero() {
			begun = run.Created
		}
		stages = append(stages,
			Stage{Stage: "source", ID: run.Revision.URL + "@" + string(run.Revision.ID), At: begun, Detail: run.Trigger.Kind + " of " + run.Repo.Name},
			Stage{Stage: "run", ID: run.ID, At: run.Created, Detail: strings.TrimSpace(fmt.Sprintf("%s: %s %s", run.Pipeline, run.State, run.Reason))})
		for _, job := range run.Jobs {
			stages = append(stages, madeBy(job)...)
		}
	}
	return stages
}

// madeBy are the images of a job, and that the server has vouched for them. Only a job
// whose images are signed, with SBOM and provenance, has succeeded.
func madeBy(job builder.Job) []Stage {
	var stages []Stage
	for _, image := range job.Images {
		built := job.Finished
		if n := len(job.Steps); n > 0 && !job.Steps[n-1].Finished.IsZero() {
			built = job.Steps[n-1].Finished
		}
		if built.IsZero() {
			continue // a newer attempt is under way
		}
		stages = append(stages, Stage{Stage: "built", ID: image.Reference(), At: built, Detail: strings.TrimSpace("by job " + job.Name + " " + isolation(job))})
		switch {
		case job.State == builder.Succeeded:
			stages = append(stages, Stage{Stage: "attested", ID: image.Digest, At: job.Finished, Detail: "signed, with SBOM and provenance"})
		case job.State.Ended():
			stages = append(stages, Stage{Stage: "rejected", ID: image.Digest, At: job.Finished, Detail: strings.TrimSpace("not attested: " + job.State.String() + " " + job.Reason)})
		}
	}
	return stages
}

func isolation(job builder.Job) string {
	if job.Tier == "" {
		return ""
	}
	return "in " + job.Tier
}

// promotes reports whether a run has brought something to an app.
func promotes(run builder.Run, app string) bool {
	return slices.ContainsFunc(run.Jobs, func(j builder.Job) bool { return j.Promotion != nil && j.Promotion.App == app })
}
