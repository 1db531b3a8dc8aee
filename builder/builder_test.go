package builder_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
)

// TestRunSurvivesStorage: a Run is stored as JSON and read by other versions.
func TestRunSurvivesStorage(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	image := builder.Image{Repository: "r.example/shop", Digest: "sha256:ab", Revision: gitsource.Revision{URL: "u", Ref: "refs/heads/main", ID: "c0ffee"}}
	run := builder.Run{
		ID: "r1", Repo: builder.Repo{Name: "shop", URL: "u"}, State: builder.Running, Created: at,
		Jobs: []builder.Job{{Name: "image", State: builder.Attesting, Images: []builder.Image{image}, Steps: []builder.Step{{Name: "go-image", State: builder.Succeeded}}}},
	}
	text, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	var again builder.Run
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(run, again) {
		t.Errorf("%v\n%s\n%+v", err, text, again)
	}
	if got := image.Reference(); got != "r.example/shop@sha256:ab" {
		t.Error(got)
	}
}

func TestStates(t *testing.T) {
	for s := builder.Pending; s <= builder.Skipped; s++ {
		text, err := s.MarshalText()
		var again builder.State
		if err != nil || again.UnmarshalText(text) != nil || again != s {
			t.Errorf("%s: %q %v", s, text, err)
		}
		if ended := s != builder.Pending && s != builder.Running && s != builder.Attesting; s.Ended() != ended {
			t.Errorf("%s: ended %t", s, s.Ended())
		}
	}
	var s builder.State
	if s.UnmarshalText([]byte("Done")) == nil {
		t.Error("an unknown state was read")
	}
	if _, err := (builder.Skipped + 1).MarshalText(); err == nil {
		t.Error("a state without a name was written")
	}
}
