package render

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"helm.sh/helm/v3/pkg/release"

	"github.com/slipway-cd/slipway/manifests"
)

// hookOf translates the value of Helm's hook annotation. kept is false for
// hooks of events that Slipway does not have: tests, deletions and rollbacks.
//
// Helm tells a first installation from an upgrade, and Slipway does not: a hook
// that comes after the one and before the other comes after, since before there
// may be nothing yet that it can work on.
func hookOf(annotation string) (hook string, kept bool, err error) {
	ordinary := true
	for name := range strings.SplitSeq(annotation, ",") {
		switch event := release.HookEvent(strings.ToLower(strings.TrimSpace(name))); event {
		case "", "crd-install":
			continue
		case release.HookPreInstall, release.HookPreUpgrade:
			hook = cmp.Or(hook, manifests.HookPreApply)
		case release.HookPostInstall, release.HookPostUpgrade:
			hook = manifests.HookPostApply
		case release.HookTest, "test-success", "test-failure", release.HookPreDelete, release.HookPostDelete, release.HookPreRollback, release.HookPostRollback:
		default:
			return "", false, fmt.Errorf("helm hook %q is not known", event)
		}
		ordinary = false
	}
	return hook, ordinary || hook != "", nil
}

// translateHook gives a Helm hook Slipway's annotations. kept is false for an object that is left out.
func translateHook(one located) (kept bool, err error) {
	annotations := one.object.GetAnnotations()
	hook, kept, err := hookOf(annotations[release.HookAnnotation])
	if err != nil {
		return false, one.err(fmt.Errorf("%s: %w", nameOf(one), err))
	}
	if hook == "" || !kept {
		return kept, nil
	}
	if _, own := annotations[manifests.AnnotationHook]; !own {
		annotations[manifests.AnnotationHook] = hook
	}
	if _, own := annotations[manifests.AnnotationWave]; !own {
		weight := strings.TrimSpace(annotations[release.HookWeightAnnotation])
		if _, err := strconv.Atoi(weight); err == nil {
			annotations[manifests.AnnotationWave] = weight
		} else if weight != "" {
			return false, one.err(errors.New(nameOf(one) + ": annotation " + release.HookWeightAnnotation + " is not a whole number"))
		}
	}
	one.object.SetAnnotations(annotations)
	return true, nil
}
