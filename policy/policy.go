// Package policy says why something may proceed.
//
// A rule answers with a Decision; a Chain asks rules in order and stops at the
// first denial. Nothing here opens a gate by omission: the zero Decision denies.
package policy

import "fmt"

// Outcome is what a rule decided.
type Outcome uint8

const (
	Deny Outcome = iota // zero value: forgetting a rule must not open the gate
	Allow
)

func (o Outcome) String() string {
	if o == Allow {
		return "allow"
	}
	return "deny"
}

// Decision is an Outcome with the rule that made it and the reason, in words for people.
type Decision struct {
	Outcome Outcome
	Rule    string // name of the deciding rule
	Subject string // what it was about: an image, an object
	Reason  string // cause and way out; empty for Allow
}

// Allowed reports whether the subject may proceed.
func (d Decision) Allowed() bool { return d.Outcome == Allow }

func (d Decision) String() string {
	if d.Allowed() {
		return fmt.Sprintf("%s allowed by %s", d.Subject, d.Rule)
	}
	return fmt.Sprintf("%s refused by %s: %s", d.Subject, d.Rule, d.Reason)
}

// Rule decides about one input. It must be deterministic.
type Rule[T any] interface {
	Evaluate(in T) Decision
}

// RuleFunc makes a function a Rule.
type RuleFunc[T any] func(in T) Decision

// Evaluate calls f.
func (f RuleFunc[T]) Evaluate(in T) Decision { return f(in) }

// Chain is a list of rules, all of which must allow.
type Chain[T any] []Rule[T]

// Evaluate stops at the first denial and returns it. An empty chain denies.
func (c Chain[T]) Evaluate(in T) Decision {
	decision := Decision{Rule: "empty chain", Reason: "no rule was asked, so nothing may proceed"}
	for _, rule := range c {
		decision = rule.Evaluate(in)
		if !decision.Allowed() {
			return decision
		}
	}
	return decision
}
