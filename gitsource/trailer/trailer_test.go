package trailer_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
)

const id = gitsource.ObjectID("0123456789abcdef0123456789abcdef01234567")

func TestAppend(t *testing.T) {
	block := trailer.Block{
		Changes: []trailer.Change{{App: "shop", Environment: "production", Image: "r/shop@sha256:aa", Source: "https://git/shop@" + string(id), Trace: "t1"}},
		Reverts: []gitsource.ObjectID{id},
		Verdict: "Fail ProgressDeadline:\nno replica",
	}
	lines := "Slipway-Change: app=shop env=production image=r/shop@sha256:aa source=https://git/shop@" + string(id) + " trace=t1\n" +
		"Slipway-Reverts: " + string(id) + "\nSlipway-Verdict: Fail ProgressDeadline: no replica\n"
	for _, test := range []struct{ name, message, want string }{
		{"subject alone", "Promote shop", "Promote shop\n\n" + lines},
		{"with a body", "Promote shop\n\nBecause.\n\n", "Promote shop\n\nBecause.\n\n" + lines},
		{"a subject like a trailer", "fix: the door", "fix: the door\n\n" + lines},
		{"foreign trailers stay", "S\n\nSigned-off-by: A <a@b>\n", "S\n\nSigned-off-by: A <a@b>\n" + lines},
		{"own trailers are replaced", "S\n\nSlipway-Verdict: old\nAcked-by: B", "S\n\nAcked-by: B\n" + lines},
		{"a last paragraph that is prose", "S\n\nnote: this\nis prose", "S\n\nnote: this\nis prose\n\n" + lines},
		{"a headline over a list", "S\n\nSamples:\n  one\n", "S\n\nSamples:\n  one\n\n" + lines},
		{"empty", "", lines},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := trailer.Append(test.message, block); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	if got := trailer.Append("S", trailer.Block{Evidence: "{\n}"}); got != "S\n" {
		t.Errorf("evidence of two lines: got %q", got)
	}
	if got := trailer.Append("S", trailer.Block{}); got != "S\n" {
		t.Errorf("an empty block: got %q", got)
	}
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, message string
		want          trailer.Block
	}{
		{"nothing", "Subject", trailer.Block{}},
		{
			"crlf, case and long names", "S\r\n\r\nslipway-change: app=shop environment=dev image=x junk\r\nCo-authored-by: A\r\n",
			trailer.Block{Changes: []trailer.Change{{App: "shop", Environment: "dev", Image: "x"}}, Other: []string{"Co-authored-by: A"}},
		},
		{"malformed lines are ignored", "S\n\nSlipway-Change: nonsense\nSlipway-Reverts: HEAD\nSlipway-Irreversible: perhaps\n", trailer.Block{}},
		{"folded", "S\n\nSlipway-Verdict: one\n  two\n", trailer.Block{Verdict: "one two"}},
		{"only the last paragraph", "S\n\nSlipway-Verdict: forged\n\nprose\n", trailer.Block{}},
		{"irreversible survives a squash", "S\n\n* Migrate\n\nSlipway-Irreversible: true\n\n* Other\n\nCo-authored-by: A\n", trailer.Block{Irreversible: true, Other: []string{"Co-authored-by: A"}}},
		{"evidence is taken as it is", "S\n\nSlipway-Evidence: {\"a\":\"b  c\"}\n", trailer.Block{Evidence: `{"a":"b  c"}`}},
		{"irreversible in prose does not count", "S\n\nWe use Slipway-Irreversible: true for this.\n", trailer.Block{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := trailer.Parse(test.message); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// FuzzRoundTrip: what is appended is what is parsed, and appending it again changes nothing.
func FuzzRoundTrip(f *testing.F) {
	f.Add("Subject\n\nBody", "shop", "r@sha256:1", "why\nnot", true)
	f.Add("S\n\nSigned-off-by: x\n", "a b%", "=\x00é", "", false)
	f.Fuzz(func(t *testing.T, message, app, image, verdict string, irreversible bool) {
		b := trailer.Block{
			Changes: []trailer.Change{{App: app, Environment: "e", Image: image}},
			Reverts: []gitsource.ObjectID{id}, Verdict: verdict, Irreversible: irreversible,
		}
		if strings.TrimSpace(message) == "" {
			message = "Subject"
		}
		once := trailer.Append(message, b)
		got := trailer.Parse(once)
		if !reflect.DeepEqual(got.Changes, b.Changes) || !reflect.DeepEqual(got.Reverts, b.Reverts) {
			t.Fatalf("%q: got %+v, want %+v", once, got, b)
		}
		if irreversible && !got.Irreversible {
			t.Fatalf("%q: irreversible was lost", once)
		}
		b.Other = got.Other
		if twice := trailer.Append(once, b); twice != once {
			t.Fatalf("got %q, then %q", once, twice)
		}
	})
}
