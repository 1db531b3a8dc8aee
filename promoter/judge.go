package promoter

import (
	"fmt"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// evidence is all that decides about one Update: what the branch says now, and how it came to.
type evidence struct {
	now   edit.Image // the entry; zero if there is none
	holds environment.Holds
	// freeze is nil where nothing is frozen at the moment.
	freeze *environment.Freeze
}

// history is the second half of it, which costs more to read.
type history struct {
	steps []step // of the entry, newest first
	// since is the time of the oldest commit that was looked at; zero if that is the first there is.
	since time.Time
	// older reports whether an Update was built from something older than what origin says, and why in words.
	older func(u Update, than origin) (string, bool)
}

// judgement is what is to become of an Update; empty when it may be written.
type judgement struct {
	outcome WriteOutcome
	reason  string
	until   time.Time
}

// judgeNow decides what the tip alone tells; false if the history has to be asked.
func judgeNow(u Update, e evidence) (judgement, bool) {
	if e.now.Digest == u.Image.Digest {
		return judgement{outcome: Present}, true
	}
	if hold, held := e.holds.Find("", u.Image.Digest); held {
		return judgement{outcome: Held, reason: (&HeldError{App: u.App, Environment: u.Environment, Hold: hold}).Error()}, true
	}
	if e.freeze != nil {
		return judgement{outcome: Frozen, reason: (&FrozenError{Environment: u.Environment, Freeze: *e.freeze}).Error(), until: e.freeze.Until}, true
	}
	return judgement{}, false
}

// judgePast decides what the history tells. Content comes first: which digests
// stood, and what took them out. Trailers and clocks only tell apart what content
// cannot, and where they leave doubt nothing is written: the next build will be.
func judgePast(u Update, h history) judgement {
	late := func(format string, args ...any) judgement {
		return judgement{outcome: Late, reason: u.Image.Reference() + ": " + fmt.Sprintf(format, args...)}
	}
	for i, s := range h.steps {
		if s.Before.Digest != u.Image.Digest {
			continue
		}
		if s.forward(h.steps[i+1:]) {
			// A newer build took its place. A Run that began later may give the same digest
			// again, of a source that was reverted say; the same Run sent again may not.
			if u.BuiltAt.After(s.Commit.Committer.When) {
				break
			}
			return late("%s took its place by %s", brief(s.After), cite(s.Commit))
		}
		return judgement{outcome: Held, reason: fmt.Sprintf("%s: taken out of %s by %s (promote it by hand to bring it back)", u.Image.Reference(), u.Environment, cite(s.Commit))}
	}
	for _, s := range h.steps {
		if s.Build.Run == "" {
			continue
		}
		if why, older := h.older(u, s.Build); older {
			return late("%s, put in by %s, is newer: %s", brief(s.After), cite(s.Commit), why)
		}
		break
	}
	if len(h.steps) == 0 {
		if u.BuiltAt.Before(h.since) {
			return late("its run began at %s, before all history that was looked at (since %s)", stamp(u.BuiltAt), stamp(h.since))
		}
		return judgement{}
	}
	newest := h.steps[0]
	chosen := newest.Build.Run == "" && newest.Before != (edit.Image{}) && !stood(h.steps[1:], newest.After)
	if chosen && u.BuiltAt.Before(newest.Commit.Committer.When) {
		return late("%s was chosen by %s after the run began at %s", brief(newest.After), cite(newest.Commit), stamp(u.BuiltAt))
	}
	return judgement{}
}

// forward reports whether a step put in a build newer than what stood there, as far as the runs tell: ids sort by time.
func (s step) forward(earlier []step) bool {
	if s.Build.Run == "" {
		return false
	}
	for _, e := range earlier {
		if e.After.Digest == s.Before.Digest {
			return e.Build.Run < s.Build.Run
		}
	}
	return true
}

// stood reports whether an image is one that stood there before.
func stood(steps []step, image edit.Image) bool {
	for _, s := range steps {
		for _, i := range []edit.Image{s.After, s.Before} {
			if i.Digest == image.Digest && i.NewTag == image.NewTag {
				return true
			}
		}
	}
	return false
}

// cite names a commit for people: `0123456789ab of Ann ("Revert it", 2026-03-01T12:00:00Z)`.
func cite(c gitsource.Commit) string {
	subject, _, _ := strings.Cut(strings.TrimSpace(c.Message), "\n")
	return fmt.Sprintf("%s of %s (%q, %s)", c.ID.Short(), oneLine(c.Author.Name, 60), oneLine(subject, 100), stamp(c.Committer.When))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// oneLine bounds foreign text to a number of characters and keeps it from starting lines of its own.
func oneLine(s string, most int) string {
	runes := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " "))
	if len(runes) > most {
		runes = append(runes[:most-1], '…')
	}
	return string(runes)
}

// builtBefore decides by what Git says of two source commits, else by the ids of the runs,
// which sort by time, else by when the Run began. Base is the merge base of the commits,
// where both are of one repository and it could be found.
func builtBefore(u Update, than origin, base gitsource.ObjectID, stands time.Time) (why string, older bool) {
	mine, theirs := u.Image.Revision.ID, gitsource.ObjectID("")
	if _, id, ok := than.source(); ok {
		theirs = id
	}
	switch {
	case base != "" && base == mine && base != theirs:
		return fmt.Sprintf("its source %s already contains %s", theirs.Short(), mine.Short()), true
	case base != "" && base == theirs && base != mine:
		return "", false
	case u.Run != "" && than.Run != "":
		return fmt.Sprintf("run %s began after run %s", oneLine(than.Run, 80), u.Run), u.Run < than.Run
	default:
		return fmt.Sprintf("it came after the run began at %s", stamp(u.BuiltAt)), u.BuiltAt.Before(stands)
	}
}
