package environment_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/promoter/environment"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

var since = time.Date(2026, 3, 1, 8, 0, 0, 999, time.FixedZone("", 3600))

func TestHolds(t *testing.T) {
	hold := environment.Hold{Image: "r.example/shop", Digest: digest("b"), Reason: "1 of 3 \"ready\"\nsee log", Verdict: "Fail", Since: since, By: "agent production-eu"}
	h := environment.Holds{}.With(hold).With(environment.Hold{Image: "r.example/shop", Digest: digest("a"), Since: since})
	want := `apiVersion: slipway.dev/v1alpha1
kind: Holds
holds:
  - image: "r.example/shop"
    digest: "` + digest("a") + `"
    since: 2026-03-01T07:00:00Z
  - image: "r.example/shop"
    digest: "` + digest("b") + `"
    reason: "1 of 3 \"ready\"\nsee log"
    verdict: "Fail"
    since: 2026-03-01T07:00:00Z
    by: "agent production-eu"
`
	if got := string(h.Bytes()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if _, held := h.Find("", digest("b")); !held {
		t.Error("not found by digest alone")
	}
	if _, held := h.Find("other", digest("b")); held {
		t.Error("found under another name")
	}
	if twice := h.With(hold); !bytes.Equal(twice.Bytes(), h.Bytes()) {
		t.Error("holding twice changes something")
	}
	if left := h.Without("r.example/shop", digest("a")).Without("r.example/shop", digest("b")); !left.Empty() {
		t.Errorf("left: %v", left.All())
	}
}

func TestHoldsRefused(t *testing.T) {
	head := "apiVersion: slipway.dev/v1alpha1\nkind: Holds\nholds:\n"
	for name, c := range map[string]struct{ in, want string }{
		"empty":   {"", "holds:1: the file is empty"},
		"digest":  {head + "- {image: a, digest: sha256:1, since: 2026-01-01T00:00:00Z}\n", "holds:4: digest \"sha256:1\": want sha256: and 64 lower-case hex characters"},
		"since":   {head + "- {image: a, digest: " + digest("a") + ", since: yesterday}\n", "holds:4: since \"yesterday\": want a time like 2026-01-31T08:00:00Z"},
		"unknown": {head + "- image: a\n  digest: " + digest("a") + "\n  since: 2026-01-01T00:00:00Z\n  resaon: x\n", "holds:7: unknown key \"resaon\" in a hold; did you mean \"reason\"?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := environment.ParseHolds([]byte(c.in))
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestFreeze(t *testing.T) {
	f := environment.Freeze{Until: since, Reason: "holidays: \"all\"", By: "ann"}
	back, err := environment.ParseFreeze(f.Bytes())
	if err != nil || back.Reason != f.Reason || back.By != f.By || !back.Until.Equal(f.Until.Truncate(time.Second)) {
		t.Fatalf("%+v, %v", back, err)
	}
	if !back.Active(back.Until.Add(-time.Second)) || back.Active(back.Until) {
		t.Error("active is before until")
	}
	if _, err := environment.ParseFreeze([]byte("kind: Freeze\napiVersion: slipway.dev/v1alpha1\n")); err == nil || err.Error() != "freeze:1: \"until\" is missing" {
		t.Error(err)
	}
}

// FuzzHolds: the bytes of Holds parse to Holds with the same bytes.
func FuzzHolds(f *testing.F) {
	f.Add("r.example/shop", byte('b'), "reason", "Fail", int64(1700000000), "agent")
	f.Add("\x00\u2028\ufeff", byte('a'), "\xff'\"\\\n\r\t#", "\u0085", int64(0), " ")
	f.Fuzz(func(t *testing.T, image string, c byte, reason, verdict string, at int64, by string) {
		if image == "" || at < 0 || at > 253402300799 {
			t.Skip()
		}
		d := digest(string("0123456789abcdef"[c%16]))
		h := environment.Holds{}.With(environment.Hold{Image: image, Digest: d, Reason: reason, Verdict: verdict, Since: time.Unix(at, 0), By: by})
		back, err := environment.ParseHolds(h.Bytes())
		if err != nil {
			t.Fatalf("%v\n%s", err, h.Bytes())
		}
		if !bytes.Equal(back.Bytes(), h.Bytes()) || back.All()[0] != h.All()[0] {
			t.Fatalf("got %+v\nwant %+v", back.All(), h.All())
		}
		freeze := environment.Freeze{Until: time.Unix(at, 0), Reason: reason, By: by}
		if again, err := environment.ParseFreeze(freeze.Bytes()); err != nil || !bytes.Equal(again.Bytes(), freeze.Bytes()) {
			t.Fatalf("%v\n%s", err, freeze.Bytes())
		}
	})
}

func FuzzParseHolds(f *testing.F) {
	f.Add([]byte("apiVersion: slipway.dev/v1alpha1\nkind: Holds\nholds: []\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		h, err := environment.ParseHolds(content)
		if err != nil {
			return
		}
		if again, err := environment.ParseHolds(h.Bytes()); err != nil || !bytes.Equal(again.Bytes(), h.Bytes()) {
			t.Fatalf("%v\n%s", err, h.Bytes())
		}
		_, _ = environment.ParseFreeze(content)
	})
}
