package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
)

// phase is the coarse order of stages; prunes mirror the applies.
type phase uint8

const (
	crds phase = iota
	namespaces
	used // by hooks
	waves
	pruneWaves
	pruneNamespaces
	pruneCRDs
)

// place says in which stage an action is carried out.
type place struct {
	phase phase
	wave  int // of used, waves and pruneWaves
}

// step is an action at its place.
type step struct {
	place  place
	action Action
}

// wantedPlace reads the place of a wanted object. It fails on a wave that is no integer.
func wantedPlace(object *unstructured.Unstructured) (place, error) {
	ref := manifests.RefOf(object)
	wave := 0
	if text, set := object.GetAnnotations()[manifests.AnnotationWave]; set {
		parsed, err := strconv.Atoi(text)
		if err != nil {
			return place{}, fmt.Errorf("%s: annotation %s: %q is not an integer", ref, manifests.AnnotationWave, text)
		}
		wave = parsed
	}
	switch kindPhase(ref) {
	case crds:
		return place{phase: crds}, nil
	case namespaces:
		return place{phase: namespaces}, nil
	}
	if object.GetAnnotations()[manifests.AnnotationHook] == manifests.HookPreApply {
		return place{phase: used, wave: wave}, nil
	}
	return place{phase: waves, wave: wave}, nil
}

// prunePlace mirrors wantedPlace. A live annotation that people broke counts as wave 0.
func prunePlace(ref manifests.Ref, annotation string) place {
	switch kindPhase(ref) {
	case crds:
		return place{phase: pruneCRDs}
	case namespaces:
		return place{phase: pruneNamespaces}
	}
	wave, err := strconv.Atoi(annotation)
	if err != nil {
		wave = 0
	}
	return place{phase: pruneWaves, wave: wave}
}

func kindPhase(ref manifests.Ref) phase {
	switch {
	case ref.Group == "apiextensions.k8s.io" && ref.Kind == "CustomResourceDefinition":
		return crds
	case ref.Group == "" && ref.Kind == "Namespace":
		return namespaces
	default:
		return waves
	}
}

// compare orders places: prune waves run backwards.
func (p place) compare(other place) int {
	waveOrder := cmp.Compare(p.wave, other.wave)
	if p.phase == pruneWaves {
		waveOrder = -waveOrder
	}
	return cmp.Or(cmp.Compare(p.phase, other.phase), waveOrder)
}

// stage returns the empty Stage of the place.
func (p place) stage() Stage {
	switch p.phase {
	case crds:
		return Stage{Name: "crds", Gate: Established, Foundation: true}
	case namespaces:
		return Stage{Name: "namespaces", Gate: Active, Foundation: true}
	case used:
		return Stage{Name: fmt.Sprintf("for hooks, wave %d", p.wave), Foundation: true}
	case waves:
		return Stage{Name: fmt.Sprintf("wave %d", p.wave)}
	case pruneWaves:
		return Stage{Name: fmt.Sprintf("prune wave %d", p.wave)}
	case pruneNamespaces:
		return Stage{Name: "prune namespaces"}
	default:
		return Stage{Name: "prune crds"}
	}
}

// stages groups steps into stages in their order.
func stages(steps []step) []Stage {
	slices.SortStableFunc(steps, func(a, b step) int {
		return cmp.Or(a.place.compare(b.place), a.action.Ref.Compare(b.action.Ref))
	})
	var result []Stage
	for i, s := range steps {
		if i == 0 || steps[i-1].place != s.place {
			result = append(result, s.place.stage())
		}
		last := &result[len(result)-1]
		last.Actions = append(last.Actions, s.action)
	}
	return result
}
