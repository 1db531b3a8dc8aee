// Package gateway says what an HTTPRoute or GRPCRoute has to be while two versions share the traffic of a Service.
//
// It computes, and applies nothing: a Route is an object of a Bundle like any other, and is applied with it. What it does
// to one is the least that does the work. Rules that do not send to a Service of the Rollout stay as they are, in their
// place; so do filters, timeouts and the backends of others, of which only the share is kept where weights have to become
// finer. The Services that it names, SERVICE-stable and SERVICE-canary, have to be there before.
package gateway

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
)

// Group of the kinds that this package knows.
const Group = "gateway.networking.k8s.io"

// Share is how two versions share traffic.
type Share struct {
	// Services that both versions are reached by, in the Route's namespace.
	Services []string
	// Weight is the canary's percentage.
	Weight int
	// Header and Value bring requests to the canary that have exactly this, whatever the weight; empty for none.
	Header, Value string
}

// Stable names the Service that sends to stable's pods alone.
func Stable(service string) string { return service + "-stable" }

// Canary names the Service that sends to the canary's pods alone.
func Canary(service string) string { return service + "-canary" }

// Limits of the API.
const (
	maxRules  = 16
	maxWeight = 1_000_000
)

// Edit returns a Route with the traffic of share; route, as it stands in Git, is left alone. It fails when the Route sends
// nothing to a Service of share, and when the API has no room for what is asked.
func Edit(route *unstructured.Unstructured, share Share) (*unstructured.Unstructured, error) {
	edited := route.DeepCopy()
	spec, _ := edited.Object["spec"].(map[string]any)
	var rules []any
	sends := false
	for _, item := range list(spec["rules"]) {
		rule, _ := item.(map[string]any)
		if !slices.ContainsFunc(list(rule["backendRefs"]), share.moves(route.GetNamespace())) {
			rules = append(rules, item)
			continue
		}
		sends = true
		if matched := share.matched(rule, route.GetNamespace()); matched != nil {
			rules = append(rules, matched)
		}
		if err := share.divide(rule, route.GetNamespace()); err != nil {
			return nil, fmt.Errorf("%s: %w", manifests.RefOf(route), err)
		}
		rules = append(rules, rule)
	}
	switch {
	case !sends:
		return nil, fmt.Errorf("%s: no rule sends to the Rollout's Services (%s): take it out of spec.routes, or name its Service in spec.services",
			manifests.RefOf(route), strings.Join(share.Services, ", "))
	case len(rules) > maxRules:
		return nil, fmt.Errorf("%s: with a rule for the header it has %d rules, and the API takes %d (split the Route)", manifests.RefOf(route), len(rules), maxRules)
	}
	spec["rules"] = rules
	return edited, nil
}

// moves tells references to Services of share from others.
func (s Share) moves(namespace string) func(any) bool {
	return func(item any) bool {
		ref, _ := item.(map[string]any)
		return (ref["group"] == nil || ref["group"] == "") && (ref["kind"] == nil || ref["kind"] == "Service") &&
			(ref["namespace"] == nil || ref["namespace"] == namespace) && slices.Contains(s.Services, fmt.Sprint(ref["name"]))
	}
}

// divide replaces each reference that s moves by those to both versions. Weights of a rule that has others too become
// finer together, so that each keeps its share.
func (s Share) divide(rule map[string]any, namespace string) error {
	refs := list(rule["backendRefs"])
	if s.Weight == 0 || s.Weight == 100 {
		for i, item := range refs {
			if s.moves(namespace)(item) {
				refs[i] = s.to(item, s.Weight == 100)
			}
		}
		return nil
	}
	alone := len(refs) == 1
	var divided []any
	for _, item := range refs {
		weight := weightOf(item)
		if alone && weight > 0 {
			weight = 1
		}
		if !s.moves(namespace)(item) {
			divided = append(divided, weighted(item, 100*weight))
			continue
		}
		divided = append(divided, weighted(s.to(item, false), int64(100-s.Weight)*weight), weighted(s.to(item, true), int64(s.Weight)*weight))
	}
	common := int64(0)
	for _, item := range divided {
		common = divisor(common, weightOf(item))
	}
	for _, item := range divided {
		weight := weightOf(item)
		if !alone && common > 1 { // alone they can be read as percentages
			weight /= common
		}
		if weight > maxWeight {
			return fmt.Errorf("a weight would be %d, and the API takes %d (use smaller ones)", weight, maxWeight)
		}
		weighted(item, weight)
	}
	rule["backendRefs"] = divided
	return nil
}

// matched is the rule for requests with the header, nil for none: all that rule asks of requests, and the header besides.
func (s Share) matched(rule map[string]any, namespace string) map[string]any {
	if s.Header == "" {
		return nil
	}
	matched := (&unstructured.Unstructured{Object: rule}).DeepCopy().Object
	delete(matched, "name") // there is one rule of a name
	wanted := map[string]any{"type": "Exact", "name": s.Header, "value": s.Value}
	var matches []any
	for _, item := range orAny(list(matched["matches"])) {
		match, _ := item.(map[string]any)
		headers := list(match["headers"])
		at := slices.IndexFunc(headers, func(item any) bool {
			header, _ := item.(map[string]any)
			return strings.EqualFold(fmt.Sprint(header["name"]), s.Header)
		})
		switch {
		case at < 0:
			match["headers"] = append(slices.Clone(headers), wanted)
		case !s.asked(headers[at]):
			continue // it asks for another value: no request has both
		}
		matches = append(matches, match)
	}
	if len(matches) == 0 {
		return nil
	}
	matched["matches"] = matches
	var refs []any
	for _, item := range list(matched["backendRefs"]) {
		if s.moves(namespace)(item) {
			refs = append(refs, s.to(item, true))
		}
	}
	matched["backendRefs"] = refs
	return matched
}

// asked says that a match asks for the very header.
func (s Share) asked(item any) bool {
	header, _ := item.(map[string]any)
	return (header["type"] == nil || header["type"] == "Exact") && header["value"] == s.Value
}

// orAny is what no match at all stands for.
func orAny(matches []any) []any {
	if len(matches) == 0 {
		return []any{map[string]any{}}
	}
	return matches
}

// to is a reference to one version instead.
func (s Share) to(item any, canary bool) any {
	ref := (&unstructured.Unstructured{Object: item.(map[string]any)}).DeepCopy().Object
	name := Stable
	if canary {
		name = Canary
	}
	ref["name"] = name(fmt.Sprint(ref["name"]))
	return ref
}

func list(value any) []any {
	items, _ := value.([]any)
	return items
}

// weightOf is 1 where none is given.
func weightOf(item any) int64 {
	ref, _ := item.(map[string]any)
	switch weight := ref["weight"].(type) {
	case int64:
		return weight
	case float64:
		return int64(weight)
	}
	return 1
}

func weighted(item any, weight int64) any {
	if ref, is := item.(map[string]any); is {
		ref["weight"] = weight
	}
	return item
}

// divisor is the greatest common one (Euclid).
func divisor(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
