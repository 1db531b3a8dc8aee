package courses

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// record is all that happened to what moves traffic, in the order of the API server: its resource versions are those of one
// store, also for different kinds.
type record struct {
	sync.Mutex
	happened []happening
}

// happening is one object as it was at one moment; gone says that it was deleted.
type happening struct {
	at     uint64 // resource version
	heard  time.Time
	gone   bool
	object *unstructured.Unstructured
}

// watch keeps a record until ctx ends, also of what happens when the API server has restarted. Informers would come back to it up
// to half a minute late, and learn nothing of what was in between.
func watch(ctx context.Context, config *rest.Config) (*record, error) {
	kube, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	r := &record{}
	for _, resource := range []schema.GroupVersionResource{
		{Group: v1alpha1.Group, Version: "v1alpha1", Resource: "rollouts"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
		{Version: "v1", Resource: "services"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "apps", Version: "v1", Resource: "replicasets"},
	} {
		known := map[types.UID]*unstructured.Unstructured{}
		watching, err := r.list(ctx, kube.Resource(resource), known)
		if err != nil {
			return nil, fmt.Errorf("%s are not watched: %w", resource, err)
		}
		go r.follow(ctx, kube.Resource(resource), known, watching)
	}
	return r, nil
}

// list notes what is there, and what is not any more, and watches from then on.
func (r *record) list(ctx context.Context, kube dynamic.ResourceInterface, known map[types.UID]*unstructured.Unstructured) (apiwatch.Interface, error) {
	list, err := kube.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	there := map[types.UID]bool{}
	for i := range list.Items {
		live := &list.Items[i]
		there[live.GetUID()] = true
		if before := known[live.GetUID()]; before == nil || before.GetResourceVersion() != live.GetResourceVersion() {
			r.note(live, false)
		}
		known[live.GetUID()] = live
	}
	for uid, last := range known {
		if !there[uid] {
			r.note(last, true)
			delete(known, uid)
		}
	}
	return kube.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
}

// follow notes what changes, and begins anew when a watch has ended.
func (r *record) follow(ctx context.Context, kube dynamic.ResourceInterface, known map[types.UID]*unstructured.Unstructured, watching apiwatch.Interface) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if watching != nil {
			for event := range watching.ResultChan() {
				live, is := event.Object.(*unstructured.Unstructured)
				if !is || event.Type == apiwatch.Error {
					break // it was too long ago
				}
				gone := event.Type == apiwatch.Deleted
				if known[live.GetUID()] = live; gone {
					delete(known, live.GetUID())
				}
				r.note(live, gone)
			}
			watching.Stop()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
			watching, _ = r.list(ctx, kube, known) // err: it is down; the next tick asks again
		}
	}
}

func (r *record) note(live *unstructured.Unstructured, gone bool) {
	at, err := strconv.ParseUint(live.GetResourceVersion(), 10, 64)
	if err != nil {
		return
	}
	r.Lock()
	defer r.Unlock()
	r.happened = append(r.happened, happening{at, time.Now(), gone, live})
}

// of is what happened in a namespace, in order.
func (r *record) of(namespace string) []happening {
	r.Lock()
	defer r.Unlock()
	var all []happening
	for _, h := range r.happened {
		if h.object.GetNamespace() == namespace {
			all = append(all, h)
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return cmp.Compare(a.at, b.at) })
	return all
}

// going is how long canaries were on their way out since a time, the longest and how many there were: pods are simulated, so that
// this is the garbage collector's time.
func (r *record) going(since time.Time) (longest time.Duration, n int) {
	r.Lock()
	defer r.Unlock()
	began := map[types.UID]time.Time{}
	for _, h := range r.happened {
		uid := h.object.GetUID()
		switch _, known := began[uid]; {
		case h.object.GetKind() != "Deployment" || h.object.GetName() != "web-canary" || h.heard.Before(since):
		case h.gone && known:
			longest, n = max(longest, h.heard.Sub(began[uid])), n+1
		case h.object.GetDeletionTimestamp() != nil && !known:
			began[uid] = h.heard
		}
	}
	return longest, n
}

// failed says why the Rollout of a namespace has ever failed; empty if it never has.
func (r *record) failed(namespace string) string {
	for _, h := range r.of(namespace) {
		if why := failOf(h.object); why != "" {
			return why
		}
	}
	return ""
}

// failOf is the Fail that a Rollout tells of, empty for none.
func failOf(object *unstructured.Unstructured) string {
	if outcome, _, _ := unstructured.NestedString(object.Object, "status", "verdict", "outcome"); outcome != v1alpha1.VerdictFail {
		return ""
	}
	reason, _, _ := unstructured.NestedString(object.Object, "status", "verdict", "reason")
	message, _, _ := unstructured.NestedString(object.Object, "status", "verdict", "message")
	return reason + ": " + message
}

// shares is what each of a version's ways to traffic has, in percent or pods.
type shares map[string]int64

// relapses tells where a failed image got more traffic after its verdict than it had: by a Route's weight or header, by a
// Service's selector, by pods of its own, or by those of the workload itself.
func (r *record) relapses(namespace, image string) (lines []string) {
	failed, had := false, shares{}
	hashes, bundles := map[string]bool{}, map[string]bool{} // pod-template-hashes and Bundles of the image
	happened := r.of(namespace)
	for _, h := range happened {
		if imageOf(h.object) != image {
			continue
		}
		switch h.object.GetKind() {
		case "ReplicaSet":
			hashes[h.object.GetLabels()["pod-template-hash"]] = true
		case "Deployment":
			bundles[h.object.GetAnnotations()[manifests.AnnotationBundle]] = true
		}
	}
	for _, h := range happened {
		bundle, _, _ := unstructured.NestedString(h.object.Object, "status", "verdict", "bundle")
		failed = failed || failOf(h.object) != "" && bundles[bundle]
		for way, share := range sharesOf(h, image, hashes) {
			if failed && share > had[way] {
				lines = append(lines, fmt.Sprintf("after the Fail, %s went from %d to %d at resource version %d", way, had[way], share, h.at))
			}
			had[way] = share
		}
	}
	if !failed {
		lines = append(lines, "no Fail of "+image+" was seen")
	}
	return lines
}

// sharesOf is what one object gives to an image, by way.
func sharesOf(h happening, image string, hashes map[string]bool) shares {
	object, name := h.object, h.object.GetKind()+" "+h.object.GetName()
	switch object.GetKind() {
	case "HTTPRoute":
		weight, header := canaryOf(object)
		return shares{name: weight, name + " by header": header}
	case "Service":
		selector, _, _ := unstructured.NestedStringMap(object.Object, "spec", "selector")
		if object.GetName() != "web" {
			return nil // it is only sent to by a Route
		}
		return shares{name: truth(!h.gone && hashes[selector["pod-template-hash"]])}
	case "Deployment":
		replicas, _, _ := unstructured.NestedInt64(object.Object, "spec", "replicas")
		return shares{name: replicas * truth(!h.gone && imageOf(object) == image)}
	}
	return nil
}

// canaryOf is what a Route gives to the canary: percent of all, and whether a header leads there.
func canaryOf(object *unstructured.Unstructured) (weight, header int64) {
	rules, _, _ := unstructured.NestedSlice(object.Object, "spec", "rules")
	for _, rule := range rules {
		rule, _ := rule.(map[string]any)
		if matches, _, _ := unstructured.NestedSlice(rule, "matches"); strings.Contains(fmt.Sprint(matches), "x-canary") {
			header = 1
			continue
		}
		refs, _, _ := unstructured.NestedSlice(rule, "backendRefs")
		all, canary := int64(0), int64(0)
		for _, ref := range refs {
			ref, _ := ref.(map[string]any)
			of, is := ref["weight"].(int64)
			if !is {
				of = 1
			}
			all += of
			if strings.HasSuffix(fmt.Sprint(ref["name"]), "-canary") {
				canary += of
			}
		}
		if all > 0 {
			weight = 100 * canary / all
		}
	}
	return weight, header
}

func imageOf(object *unstructured.Unstructured) string {
	containers, _, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
	if len(containers) == 0 {
		return ""
	}
	container, _ := containers[0].(map[string]any)
	image, _ := container["image"].(string)
	return image
}

func truth(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
