package environment

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Hold keeps one image digest out of an Environment for one app.
type Hold struct {
	Image   string // name without tag and digest
	Digest  string // sha256:...
	Reason  string // for people
	Verdict string // of the failed rollout; empty when a person holds
	Since   time.Time
	By      string // who wrote it
}

// Holds are the Holds of one app in one Environment. The zero value has none.
type Holds struct{ list []Hold } // sorted by image and digest, each pair once

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// CheckDigest says whether d is the digest of an image.
func CheckDigest(d string) error {
	if !digestPattern.MatchString(d) {
		return fmt.Errorf("digest %q: want sha256: and 64 lower-case hex characters", d)
	}
	return nil
}

// ParseHolds reads a file of Holds. The error joins one *Error per fault; its file is the word "holds".
func ParseHolds(content []byte) (Holds, error) {
	r := reader{file: "holds"}
	top := r.document(content, "Holds", "holds")
	var h Holds
	seen := map[[2]string]bool{}
	for _, n := range r.list(top["holds"], "holds") {
		hold, ok := r.hold(n)
		if !ok {
			continue
		}
		if id := [2]string{hold.Image, hold.Digest}; seen[id] {
			r.fail(n.Line, "%s@%s is held already", hold.Image, hold.Digest)
		} else {
			seen[id] = true
			h.list = append(h.list, hold)
		}
	}
	if err := r.err(); err != nil {
		return Holds{}, err
	}
	slices.SortFunc(h.list, byImage)
	return h, nil
}

// byImage is the order of Holds in the file.
func byImage(a, b Hold) int {
	return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Digest, b.Digest))
}

func (r *reader) hold(n *yaml.Node) (Hold, bool) {
	f := r.fields(n, "a hold", "image", "digest", "reason", "verdict", "since", "by")
	if f == nil {
		return Hold{}, false
	}
	h := Hold{
		Image:   r.required(n, f, "image"),
		Digest:  r.required(n, f, "digest"),
		Reason:  r.optional(f, "reason"),
		Verdict: r.optional(f, "verdict"),
		Since:   r.moment(n, f, "since"),
		By:      r.optional(f, "by"),
	}
	if h.Digest != "" {
		if err := CheckDigest(h.Digest); err != nil {
			r.fail(f["digest"].Line, "%v", err)
		}
	}
	return h, true
}

// With returns the Holds with hold added, in place of an earlier one on the same image and digest.
// Since is kept in whole seconds of UTC and text as valid UTF-8, so that Bytes and ParseHolds are inverse.
func (h Holds) With(hold Hold) Holds {
	hold.Since = seconds(hold.Since)
	for _, s := range []*string{&hold.Image, &hold.Digest, &hold.Reason, &hold.Verdict, &hold.By} {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
	out := h.Without(hold.Image, hold.Digest)
	out.list = append(out.list, hold)
	slices.SortFunc(out.list, byImage)
	return out
}

// Without returns the Holds without the one on image and digest.
func (h Holds) Without(image, digest string) Holds {
	var out Holds
	for _, o := range h.list {
		if o.Image != image || o.Digest != digest {
			out.list = append(out.list, o)
		}
	}
	return out
}

// Find returns the Hold on image and digest. The same digest under another
// name is the same content, so an empty image matches any name.
func (h Holds) Find(image, digest string) (Hold, bool) {
	for _, o := range h.list {
		if o.Digest == digest && (image == "" || o.Image == image) {
			return o, true
		}
	}
	return Hold{}, false
}

// All returns the Holds, sorted by image and digest.
func (h Holds) All() []Hold { return slices.Clone(h.list) }

// Empty reports whether nothing is held.
func (h Holds) Empty() bool { return len(h.list) == 0 }

// Bytes returns the file. Equal Holds give equal bytes.
func (h Holds) Bytes() []byte {
	var b strings.Builder
	b.WriteString("apiVersion: " + apiVersion + "\nkind: Holds\nholds:")
	if h.Empty() {
		b.WriteString(" []\n")
		return []byte(b.String())
	}
	b.WriteString("\n")
	for _, o := range h.list {
		fmt.Fprintf(&b, "  - image: %s\n    digest: %s\n", quote(o.Image), quote(o.Digest))
		for _, f := range []struct{ key, value string }{{"reason", o.Reason}, {"verdict", o.Verdict}} {
			if f.value != "" {
				fmt.Fprintf(&b, "    %s: %s\n", f.key, quote(f.value))
			}
		}
		fmt.Fprintf(&b, "    since: %s\n", o.Since.Format(time.RFC3339))
		if o.By != "" {
			fmt.Fprintf(&b, "    by: %s\n", quote(o.By))
		}
	}
	return []byte(b.String())
}

// quote writes a double-quoted YAML scalar on one line; what is not printable is escaped.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r != ' ' && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
