package edit_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/promoter/edit"
)

var update = flag.Bool("update", false, "write the golden files")

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// TestGolden sets the image shop (and, in files called add_*, one more) and compares file and message.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			set := []edit.Image{{Name: "shop", Digest: digest("b")}}
			if strings.HasPrefix(name, "add_") {
				set = append(set, edit.Image{Name: "sidecar", NewName: "r.example:5000/sidecar", NewTag: "1.10"})
			}
			if strings.HasPrefix(name, "tag_") {
				set = []edit.Image{{Name: "shop", NewName: "r.example/new", NewTag: "yes"}}
			}
			out, changed, err := edit.Images(content, set)
			got := string(out)
			if err != nil {
				got = "refused: " + err.Error() + "\n"
			} else {
				again, more, err := edit.Images(out, set)
				if err != nil || len(more) != 0 || string(again) != got {
					t.Errorf("a second edit changes %v, %v", more, err)
				}
				current, err := edit.Current(out)
				if err != nil || !slices.Contains(current, changed[0].After) {
					t.Errorf("current %v has no %v: %v", current, changed[0].After, err)
				}
			}
			golden := strings.TrimSuffix(in, ".in.yaml") + ".golden"
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
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestChangesAreNamed(t *testing.T) {
	in := []byte("images:\n- name: shop\n  newTag: v1\n- name: other\n  digest: " + digest("a") + "\n")
	out, changed, err := edit.Images(in, []edit.Image{
		{Name: "other", Digest: digest("a")},
		{Name: "shop", NewName: "r/shop", Digest: digest("b")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []edit.ImageChange{{Before: edit.Image{Name: "shop", NewTag: "v1"}, After: edit.Image{Name: "shop", NewName: "r/shop", Digest: digest("b")}}}
	if !slices.Equal(changed, want) {
		t.Errorf("got %+v, want %+v", changed, want)
	}
	if got := "images:\n- name: shop\n  newName: r/shop\n  digest: " + digest("b") + "\n- name: other\n  digest: " + digest("a") + "\n"; string(out) != got {
		t.Errorf("got:\n%s", out)
	}
	if got := changed[0].After.Reference(); got != "r/shop@"+digest("b") {
		t.Error(got)
	}
}

func TestNothingToChange(t *testing.T) {
	in := []byte("# only a comment beside it\nimages: [{name: shop, digest: " + digest("b") + "}] \n")
	out, changed, err := edit.Images(in, []edit.Image{{Name: "shop", Digest: digest("b")}})
	if err != nil || changed != nil || string(out) != string(in) {
		t.Errorf("%q, %v, %v", out, changed, err)
	}
}

func TestBadRequests(t *testing.T) {
	for want, set := range map[string][]edit.Image{
		`image "": not the name`:                     {{Digest: digest("a")}},
		`image "a: b": not the name`:                 {{Name: "a: b", Digest: digest("a")}},
		`digest "sha256:1": want`:                    {{Name: "a", Digest: "sha256:1"}},
		`newTag "v1\nx" is not a tag`:                {{Name: "a", NewTag: "v1\nx"}},
		`newName "a b" is not the name of an image`:  {{Name: "a", NewName: "a b"}},
		`image "a": has a digest and a tag; set one`: {{Name: "a", NewTag: "v1", Digest: digest("a")}},
		`image "a": nothing to set`:                  {{Name: "a"}},
		`image "a": set twice in one edit`:           {{Name: "a", NewTag: "v1"}, {Name: "a", NewTag: "v2"}},
	} {
		_, _, err := edit.Images([]byte("images: []\n"), set)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
