package environment

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Freeze stops Promotions into an Environment, never reverts.
type Freeze struct {
	Until  time.Time
	Reason string
	By     string
}

// Active reports whether the Freeze holds at now: before Until, not at it.
func (f Freeze) Active(now time.Time) bool { return now.Before(f.Until) }

// ParseFreeze reads a file written by Bytes or by a person. The error joins one *Error per fault; its file is the word "freeze".
func ParseFreeze(content []byte) (Freeze, error) {
	r := reader{file: "freeze"}
	fields := r.document(content, "Freeze", "until", "reason", "by")
	if fields == nil {
		return Freeze{}, r.err()
	}
	top := &yaml.Node{Line: 1}
	f := Freeze{Until: r.moment(top, fields, "until"), Reason: r.optional(fields, "reason"), By: r.optional(fields, "by")}
	if err := r.err(); err != nil {
		return Freeze{}, err
	}
	return f, nil
}

// Bytes returns the file. Equal Freezes give equal bytes; Until is kept in whole seconds of UTC.
func (f Freeze) Bytes() []byte {
	clean := func(s string) string { return quote(strings.ToValidUTF8(s, "\uFFFD")) }
	return []byte("apiVersion: " + apiVersion + "\nkind: Freeze\nuntil: " + seconds(f.Until).Format(time.RFC3339) +
		"\nreason: " + clean(f.Reason) + "\nby: " + clean(f.By) + "\n")
}
