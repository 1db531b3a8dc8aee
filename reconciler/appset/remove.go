package appset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Owned is an Application that the set has made.
type Owned struct {
	Name string
	UID  string // of another one after it was removed and made again: an approval does not outlive what it was for
}

// In is what Remove decides about.
type In struct {
	Set   string // its name, for the way out
	Want  Expansion
	Owned []Owned
	// Empty says that a generator found nothing, "spec.directories.pattern apps/* matches nothing"; empty where each found something.
	Empty string
	// Approved is what a person approved by AnnotationApprovePrune.
	Approved string
	// Underway is the Removal.State of an approval that is being carried out.
	Underway string
	Guard    plan.Guard // the zero value is plan.DefaultGuard
}

// Removal says what has to go.
type Removal struct {
	Names []string // without an entry, sorted
	// Held says why none of them goes yet; empty when they may.
	Held string
	// State is what the removal leads to if it takes a person's approval, which then holds until it is done; else empty.
	State string
}

// Remove finds the owned Applications that no entry asks for. An entry whose name is not known could be that of any of
// them. More than the guard allows, and everything when a generator finds nothing, takes a person's approval.
func Remove(in In) Removal {
	wanted := map[string]bool{}
	for _, app := range in.Want.Applications {
		wanted[app.Name] = true
	}
	nameless := ""
	for _, failure := range in.Want.Failures {
		if failure.Name == "" && nameless == "" {
			nameless = failure.Origin
		}
		wanted[failure.Name] = true
	}
	var out Removal
	var uids []string
	for _, owned := range in.Owned {
		if !wanted[owned.Name] {
			out.Names = append(out.Names, owned.Name)
			uids = append(uids, owned.UID)
		}
	}
	slices.Sort(out.Names)
	slices.Sort(uids)
	if len(out.Names) == 0 {
		return out
	}
	if nameless != "" {
		out.Held = fmt.Sprintf("%d applications have no entry, but the name of %s is not known, and it may be one of them; nothing is removed until that is mended", len(out.Names), nameless)
		return out
	}
	guard := in.Guard
	if guard == (plan.Guard{}) {
		guard = plan.DefaultGuard()
	}
	if in.Empty == "" && (len(out.Names) <= guard.Objects || float64(len(out.Names)) <= guard.Fraction*float64(len(in.Owned))) {
		return out
	}
	names := make([]string, 0, len(wanted))
	for name := range wanted {
		names = append(names, name)
	}
	slices.Sort(names)
	state := string(manifests.DigestOf([]byte(strings.Join(names, "\n"))))
	approval := string(manifests.DigestOf([]byte(state + "\n" + strings.Join(uids, "\n"))))
	if in.Approved == approval || in.Underway == state {
		out.State = state
		return out
	}
	why := in.Empty
	if why != "" {
		why += ", which "
	}
	out.Held = fmt.Sprintf("%swould remove %d of %d applications; none is removed until this is approved: kubectl annotate applicationset %s --overwrite %s=%s",
		why, len(out.Names), len(in.Owned), in.Set, manifests.AnnotationApprovePrune, approval)
	return out
}
