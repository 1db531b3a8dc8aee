package edit_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-cd/slipway/promoter/edit"
)

// FuzzImages: an edit that is not refused leaves every line as it was that says
// nothing about the entry, and doing it twice is doing it once.
func FuzzImages(f *testing.F) {
	inputs, _ := filepath.Glob("testdata/*.in.yaml")
	for _, in := range inputs {
		content, _ := os.ReadFile(in)
		f.Add(content, byte(0))
		f.Add(content, byte(1))
		f.Add(content, byte(2))
	}
	f.Fuzz(func(t *testing.T, in []byte, how byte) {
		set := [][]edit.Image{
			{{Name: "shop", Digest: digest("b")}},
			{{Name: "shop", NewName: "r.example/new", NewTag: "on"}},
			{{Name: "sidecar", Digest: digest("c")}, {Name: "shop", NewTag: "v2"}},
		}[how%3]
		out, changed, err := edit.Images(in, set)
		if err != nil {
			return
		}
		if len(changed) == 0 && !bytes.Equal(in, out) {
			t.Fatalf("no change named, yet\n%q\nbecame\n%q", in, out)
		}
		again, more, err := edit.Images(out, set)
		if err != nil || len(more) != 0 || !bytes.Equal(again, out) {
			t.Fatalf("a second edit: %v, %v\n%q\n%q", more, err, out, again)
		}
		// Every edited entry costs at most its name's line end (a new last line), newName, newTag and digest.
		if lost := missing(in, out); lost > 4*len(changed) {
			t.Fatalf("%d lines lost\n%q\n%q", lost, in, out)
		}
		if comments(in) > comments(out)+len(changed) {
			t.Fatalf("comments lost\n%q\n%q", in, out)
		}
	})
}

// missing counts the lines of in that are not in out, in order.
func missing(in, out []byte) int {
	rest, lost := bytes.SplitAfter(out, []byte("\n")), 0
next:
	for _, line := range bytes.SplitAfter(in, []byte("\n")) {
		for i, o := range rest {
			if bytes.Equal(line, o) {
				rest = rest[i+1:]
				continue next
			}
		}
		lost++
	}
	return lost
}

func comments(b []byte) int { return bytes.Count(b, []byte("#")) }
