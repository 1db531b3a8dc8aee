package promoter

import (
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// The bounds of a pull request's text. Hosts refuse bodies of more than 65,536 characters.
const (
	maxBody     = 60_000 // bytes
	maxDiff     = 20_000 // bytes
	maxListed   = 35_000 // bytes of images and commits
	maxCommits  = 50
	maxImages   = 50
	maxSubject  = 120 // characters, as the following
	maxName     = 60
	maxLocation = 200
)

// RequestText is what the pull request of a promotion says. What others wrote, in
// commit messages and names, cannot ping people, close issues or change how the rest is read.
type RequestText struct {
	App, Environment string
	Branch           string // of the request
	Into             string // the followed branch
	Images           []ImageText
	Commits          []CommitsText
	// Lifted are the Holds that merging removes.
	Lifted []environment.Hold
	// Diff is what is rendered differently; where it is empty, DiffNote may say why.
	Diff, DiffNote string
}

// ImageText is one image entry that changes.
type ImageText struct {
	Change edit.ImageChange
	Source string // URL@COMMIT, if known
	Run    string // that built it, if known
	RunURL string
	Trace  string
}

// CommitsText is what lies between two versions of one source.
type CommitsText struct {
	URL      string
	From, To gitsource.ObjectID
	Added    []gitsource.Commit // newest first
	Removed  []gitsource.Commit // that the new version does not contain; newest first
	More     bool               // than could be looked at
	Unknown  string             // why nothing is known; empty otherwise
}

// Title is the title.
func (t RequestText) Title() string {
	var what []string
	for _, i := range t.Images {
		what = append(what, strings.Replace(brief(i.Change.After), "@sha256:", " ", 1))
	}
	return oneLine(fmt.Sprintf("Promote %s to %s: %s", t.App, t.Environment, strings.Join(what, ", ")), 200)
}

// Body is the text in GitHub flavoured Markdown. The diff is left out where the text would be too long for a host.
func (t RequestText) Body() string {
	var b strings.Builder
	t.images(&b)
	t.lifted(&b)
	for _, c := range t.Commits {
		var part strings.Builder
		if c.write(&part); b.Len()+part.Len() > maxListed {
			part.Reset()
			fmt.Fprintf(&part, "### Commits of %s\n\n%s, too long to list.\n\n", code(c.URL, maxLocation), counted(len(c.Added)+len(c.Removed), "commit"))
		}
		if b.Len()+part.Len() <= maxListed {
			b.WriteString(part.String())
		}
	}
	rest := t.ways()
	diff := t.diff(min(maxDiff, maxBody-b.Len()-len(rest)-1000))
	return b.String() + diff + rest
}

func (t RequestText) images(b *strings.Builder) {
	fmt.Fprintf(b, "Merging this puts into **%s** of **%s**:\n\n### Images\n\n", t.Environment, t.App)
	for n, i := range t.Images {
		if n == maxImages {
			fmt.Fprintf(b, "- and %d more\n", len(t.Images)-n)
			break
		}
		fmt.Fprintf(b, "- %s\n", code(i.Change.After.Repository(), maxLocation))
		if before := version(i.Change.Before); before != "" {
			fmt.Fprintf(b, "  - from %s\n", before)
		}
		fmt.Fprintf(b, "  - to %s\n", version(i.Change.After))
		if url, commit, ok := (origin{Source: i.Source}).source(); ok {
			fmt.Fprintf(b, "  - built from %s at %s\n", code(url, maxLocation), code(commit.Short(), maxName))
		}
		if i.Run != "" {
			fmt.Fprintf(b, "  - by run %s\n", link(code(i.Run, maxName), i.RunURL))
		}
		if i.Trace != "" {
			fmt.Fprintf(b, "  - trace %s\n", code(i.Trace, maxName))
		}
	}
	b.WriteString("\n")
}

// version is the digest, else the tag, as a code span.
func version(i edit.Image) string {
	switch {
	case i.Digest != "":
		return code(i.Digest, maxLocation)
	case i.NewTag != "":
		return code(i.NewTag, maxLocation)
	}
	return ""
}

func (t RequestText) lifted(b *strings.Builder) {
	if len(t.Lifted) == 0 {
		return
	}
	b.WriteString("### Holds that this removes\n\n")
	for n, h := range t.Lifted {
		if n == maxImages {
			fmt.Fprintf(b, "- and %d more\n", len(t.Lifted)-n)
			break
		}
		fmt.Fprintf(b, "- %s of %s, held since %s by %s: %s\n", code(h.Digest, maxLocation), code(h.Image, maxLocation), stamp(h.Since), code(h.By, maxName), code(h.Reason, maxSubject))
	}
	b.WriteString("\n")
}

func (c CommitsText) write(b *strings.Builder) {
	fmt.Fprintf(b, "### Commits of %s\n\n", code(c.URL, maxLocation))
	if c.Unknown != "" {
		fmt.Fprintf(b, "What changed there is not known: %s\n\n", code(c.Unknown, maxLocation))
		return
	}
	span := fmt.Sprintf("from %s to %s", code(c.From.Short(), maxName), code(c.To.Short(), maxName))
	switch {
	case len(c.Added) == 0:
		fmt.Fprintf(b, "Nothing is new %s.\n\n", span)
	case c.More:
		fmt.Fprintf(b, "%s and more by %s, %s.\n\n", counted(len(c.Added), "commit"), counted(authors(c.Added), "person"), span)
	default:
		fmt.Fprintf(b, "%s by %s, %s.\n\n", counted(len(c.Added), "commit"), counted(authors(c.Added), "person"), span)
	}
	commits(b, c.Added)
	if len(c.Removed) > 0 {
		fmt.Fprintf(b, "**This takes out** %s that what stands now contains:\n\n", counted(len(c.Removed), "commit"))
		commits(b, c.Removed)
	}
}

func commits(b *strings.Builder, list []gitsource.Commit) {
	for i, c := range list {
		if i == maxCommits {
			fmt.Fprintf(b, "- and %d more\n", len(list)-i)
			break
		}
		subject, _, _ := strings.Cut(strings.TrimSpace(c.Message), "\n")
		fmt.Fprintf(b, "- %s %s by %s, %s\n", code(c.ID.Short(), maxName), code(subject, maxSubject), code(c.Author.Name, maxName), c.Author.When.UTC().Format("2006-01-02"))
	}
	if len(list) > 0 {
		b.WriteString("\n")
	}
}

func authors(list []gitsource.Commit) int {
	seen := map[string]bool{}
	for _, c := range list {
		seen[strings.ToLower(c.Author.Email)] = true
	}
	return len(seen)
}

func counted(n int, one string) string {
	switch {
	case n == 1:
		return "1 " + one
	case one == "person":
		return fmt.Sprintf("%d people", n)
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// diff folds the rendered diff, cut at a line end to at most a number of bytes.
func (t RequestText) diff(most int) string {
	if t.Diff == "" {
		if t.DiffNote == "" {
			return ""
		}
		return "### Rendered diff\n\nNot shown: " + code(t.DiffNote, maxLocation) + "\n\n"
	}
	text, cut := t.Diff, ""
	added, removed := 0, 0
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"):
		case strings.HasPrefix(line, "+"):
			added++
		case strings.HasPrefix(line, "-"):
			removed++
		}
	}
	if len(text) > most {
		whole := strings.Count(text, "\n")
		text = text[:max(0, most)]
		text = text[:strings.LastIndexByte(text, '\n')+1]
		cut = fmt.Sprintf("\nThese are the first %s of %d.\n", counted(strings.Count(text, "\n"), "line"), whole)
	}
	return fmt.Sprintf("### Rendered diff\n\n<details>\n<summary>%s added, %d removed</summary>\n\n%s%s\n</details>\n\n", counted(added, "line"), removed, block("diff", text), cut)
}

// ways says how to go on and how to go back.
func (t RequestText) ways() string {
	return fmt.Sprintf(`### To ship it

Merge this request, here or with %s. A squash or rebase does as well: Slipway reads what the files say. To refuse it, close it.

### To roll back

%s, or revert the merge commit on %s. An automatic rollback is announced here. Whatever is taken back is not brought in again by a build.

---
Slipway writes this text anew whenever %s moves.
`,
		code(fmt.Sprintf("slipway promote %s --env %s --merge", t.App, t.Environment), maxLocation),
		code(fmt.Sprintf("slipway rollback %s --env %s", t.App, t.Environment), maxLocation),
		code(t.Into, maxLocation), code(t.Branch, maxLocation))
}

// maxEvidence bounds what is quoted of a revert's message, in bytes.
const maxEvidence = 4000

// quoted is a commit message as a block.
func quoted(message string) string {
	if len(message) > maxEvidence {
		message = strings.ToValidUTF8(message[:maxEvidence], "") + "\n..."
	}
	return block("", message)
}

// revertText is what the pull request of a revert says that waits for a person.
func revertText(message string) (title, body string) {
	subject, rest, _ := strings.Cut(strings.TrimSpace(message), "\n")
	title = oneLine(visible(subject), 200)
	return title, "A version failed, and taking it back by itself was not safe. A person decides; freezes do not stop it.\n\n" + quoted(strings.TrimSpace(rest)) +
		"\nMerge this request to take the version back. To keep it, close the request.\n"
}
