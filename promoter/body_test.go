package promoter_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

var update = flag.Bool("update", false, "write the golden files")

func sourceCommit(n int, who, subject string) gitsource.Commit {
	return gitsource.Commit{
		ID: commitID(n), Message: subject + "\n\nMore text with @everybody.\n",
		Author: gitsource.Person{Name: who, Email: strings.ToLower(who) + "@example.org", When: noon.Add(time.Duration(n) * time.Hour)},
	}
}

func plainText() promoter.RequestText {
	return promoter.RequestText{
		App: "shop", Environment: "production", Branch: requestBranch, Into: "main",
		Images: []promoter.ImageText{{
			Change: edit.ImageChange{
				Before: edit.Image{Name: "shop", NewName: "r.example/shop", Digest: digest("a")},
				After:  edit.Image{Name: "shop", NewName: "r.example/shop", Digest: digest("b")},
			},
			Source: sourceURL + "@" + string(commitID(3)), Run: "run-0003", RunURL: "https://ci.example/runs/run-0003", Trace: "4bf92f3577b34da6a3ce929d0e0e4736",
		}},
		Commits: []promoter.CommitsText{{
			URL: sourceURL, From: commitID(1), To: commitID(3),
			Added: []gitsource.Commit{sourceCommit(3, "Ann", "Let carts be emptied"), sourceCommit(2, "Bob", "Fix the cart")},
		}},
		Diff: "--- a\n+++ b\n@@ -1,3 +1,3 @@\n kind: Deployment\n-image: r.example/shop@" + digest("a") + "\n+image: r.example/shop@" + digest("b") + "\n",
	}
}

func TestRequestText(t *testing.T) {
	back := plainText()
	back.Commits[0] = promoter.CommitsText{
		URL: sourceURL, From: commitID(3), To: commitID(1), More: true, Removed: []gitsource.Commit{sourceCommit(3, "Ann", "Let carts be emptied")},
	}
	back.Diff, back.DiffNote = "", "it renders to the same objects"
	back.Lifted = []environment.Hold{{Image: "r.example/shop", Digest: digest("b"), Reason: "eats carts", Since: noon, By: "Ann"}}
	unknown := plainText()
	unknown.Images = append(unknown.Images, promoter.ImageText{Change: edit.ImageChange{After: edit.Image{Name: "sidecar", NewTag: "v2"}}})
	unknown.Commits = []promoter.CommitsText{{URL: sourceURL, To: commitID(3), Unknown: "nothing says what the image that stands now was built from"}}
	unknown.Diff = ""
	hostile := plainText()
	hostile.Commits[0].Added = []gitsource.Commit{
		sourceCommit(3, "@admin", "Closes #1, ping @everybody and @ann/team"),
		sourceCommit(2, "Eve\n\n# Approved", "``` </details> <img src=https://evil.example> ```\n"),
		sourceCommit(1, "Mal[x](javascript:1)", "\u202Egnp.exe \u200Bzero | width ` tick"),
		sourceCommit(4, "", ""),
	}
	hostile.Images[0].RunURL = "javascript:alert(1)"
	hostile.Diff = "+```\n+</details>\n+@everybody\n-\x1b[31m````\r\n"
	long := plainText()
	long.Diff = strings.Repeat("+a: b\n", 5000)
	for name, text := range map[string]promoter.RequestText{"plain": plainText(), "back": back, "unknown": unknown, "hostile": hostile, "long": long} {
		t.Run(name, func(t *testing.T) {
			got := text.Title() + "\n\n" + text.Body()
			golden := filepath.Join("testdata", "request_"+name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// FuzzRequestText: whatever others write stays inside code spans and blocks, where
// hosts read no Markdown; outside, the text is the same for all of them.
func FuzzRequestText(f *testing.F) {
	for _, s := range []string{
		"plain", "", "`", "``", "```\n@all", "a`b``c", "~~~", "- x", "<details>", "</details>", "@everybody", "\\`", "\n\n# x", "|", "\u202e", "fixes #1",
		"````", "` `", "[a](b)", "![a](b)", "\t```", "\r```\r", "\x00`", "@", " ` ",
	} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		body := foreign(one, two).Body()
		if len(body) > 65_536 {
			t.Fatalf("%d bytes", len(body))
		}
		if got, want := outside(body), outside(foreign("plain", "text").Body()); got != want {
			t.Fatalf("outside of code:\n%s\nwant:\n%s\nbody:\n%s", got, want, body)
		}
		if title := foreign(one, two).Title(); strings.ContainsAny(title, "\n\r") {
			t.Fatalf("title %q", title)
		}
	})
}

// foreign is a text in which all that others wrote is one or two.
func foreign(one, two string) promoter.RequestText {
	t := plainText()
	t.Images[0].Change.After.NewName, t.Images[0].Run, t.Images[0].Trace = one+"x", two+"x", one+"x"
	t.Images[0].Source = "x" + two + "@" + string(commitID(3))
	t.Images[0].Change.Before.Digest, t.Images[0].Change.After.Digest = one+"x", two+"x"
	c := sourceCommit(2, one, two)
	c.Author.Email = "same"
	t.Commits = []promoter.CommitsText{
		{URL: one, From: commitID(1), To: commitID(2), Added: []gitsource.Commit{c, c}, Removed: []gitsource.Commit{c}},
		{URL: two, Unknown: one + "x"},
	}
	t.Lifted = []environment.Hold{{Image: one, Digest: two, Reason: one, By: two, Since: noon}}
	t.Diff = " " + strings.ReplaceAll(one, "\n", "\n ") + "\n " + strings.ReplaceAll(two, "\n", "\n ")
	if len(t.Diff) > 10_000 {
		t.Diff = " x" // that a long one is cut shows outside, as it should
	}
	return t
}

// outside is what is left of Markdown without the contents of code spans and fenced blocks.
func outside(markdown string) string {
	var out strings.Builder
	fence := ""
	for _, line := range strings.Split(markdown, "\n") {
		run := line[:len(line)-len(strings.TrimLeft(line, "`"))]
		switch {
		case fence != "" && run == line && len(run) >= len(fence):
			fence = ""
		case fence != "":
		case len(run) >= 3 && !strings.Contains(line[len(run):], "`"):
			fence = run
		default:
			out.WriteString(withoutSpans(line) + "\n")
		}
	}
	if fence != "" {
		out.WriteString("a block is not closed")
	}
	return out.String()
}

// withoutSpans goes by CommonMark 6.1: a span ends at the next run of just as many backticks.
func withoutSpans(line string) string {
	var out strings.Builder
	for line != "" {
		begin := strings.IndexByte(line, '`')
		if begin < 0 {
			break
		}
		out.WriteString(line[:begin])
		line = line[begin:]
		run := len(line) - len(strings.TrimLeft(line, "`"))
		end := closing(line[run:], run)
		if end < 0 {
			out.WriteString("(not closed)" + line[:run])
			line = line[run:]
			continue
		}
		line = line[run+end+run:]
		out.WriteString("``")
	}
	return out.String() + line
}

func closing(s string, run int) int {
	for at := 0; at < len(s); {
		if s[at] != '`' {
			at++
			continue
		}
		n := len(s[at:]) - len(strings.TrimLeft(s[at:], "`"))
		if n == run {
			return at
		}
		at += n
	}
	return -1
}
