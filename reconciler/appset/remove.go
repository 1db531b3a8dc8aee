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
	// Disposable is a preview: it comes again with its pull request, and takes nobody's approval to go.
	Disposable bool
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
	// Now are those of them that may go.
	Now []string
	// Held says why the others do not go yet; empty when all may.
	Held string
	// State is what the removal leads to if it takes a person's approval, which then holds until it is done; else empty.
	State string
}

// Remove finds the owned Applications that no entry asks for. An entry whose name is not known could be that of any of
// them. More than the guard allows, and everything when a generator finds nothing, takes a person's approval, except for
// what is disposable.
func Remove(in In) Removal {
	wanted, nameless := in.wanted()
	var out Removal
	var guarded, uids []string
	lasting := 0
	for _, owned := range in.Owned {
		if !owned.Disposable {
			lasting++
		}
		if _, stays := wanted[owned.Name]; stays {
			continue
		}
		out.Names = append(out.Names, owned.Name)
		if owned.Disposable {
			out.Now = append(out.Now, owned.Name)
			continue
		}
		guarded = append(guarded, owned.Name)
		uids = append(uids, owned.UID)
	}
	slices.Sort(out.Names)
	slices.Sort(out.Now)
	if len(out.Names) == 0 {
		return out
	}
	if nameless != "" {
		out.Now = nil
		out.Held = fmt.Sprintf("%d applications have no entry, but the name of %s is not known, and it may be one of them; nothing is removed until that is mended", len(out.Names), nameless)
		return out
	}
	guard := in.Guard
	if guard == (plan.Guard{}) {
		guard = plan.DefaultGuard()
	}
	if len(guarded) == 0 || in.Empty == "" && (len(guarded) <= guard.Objects || float64(len(guarded)) <= guard.Fraction*float64(lasting)) {
		out.Now = out.Names
		return out
	}
	state, approval := approvalOf(wanted, uids)
	if in.Approved == approval || in.Underway == state {
		out.State, out.Now = state, out.Names
		return out
	}
	why := in.Empty
	if why != "" {
		why += ", which "
	}
	out.Held = fmt.Sprintf("%swould remove %d of %d applications; none is removed until this is approved: kubectl annotate applicationset %s --overwrite %s=%s",
		why, len(guarded), lasting, in.Set, manifests.AnnotationApprovePrune, approval)
	return out
}

// wanted are the names that entries ask for, with whether they last; nameless is the origin of an entry whose name is not known.
func (in In) wanted() (lasts map[string]bool, nameless string) {
	lasts = map[string]bool{}
	for _, app := range in.Want.Applications {
		lasts[app.Name] = app.Preview == nil
	}
	for _, failure := range in.Want.Failures {
		if failure.Name == "" && nameless == "" {
			nameless = failure.Origin
		}
		lasts[failure.Name] = lasts[failure.Name] || !failure.Disposable
	}
	return lasts, nameless
}

// approvalOf names what a removal leads to, and with what it begins. Previews are no part of it: an approval would not live
// longer than from one push to the next.
func approvalOf(wanted map[string]bool, uids []string) (state, approval string) {
	var names []string
	for name, lasts := range wanted {
		if lasts {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	slices.Sort(uids)
	state = string(manifests.DigestOf([]byte(strings.Join(names, "\n"))))
	return state, string(manifests.DigestOf([]byte(state + "\n" + strings.Join(uids, "\n"))))
}
