package plan

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/gateway"
)

// Bundle is what a Rollout moves as one.
type Bundle struct {
	Rollout manifests.Ref
	// Objects are the workload, the Services and Routes that the Rollout names and the
	// ConfigMaps and Secrets that the workload uses, ordered by Ref; those of the Set, not copies.
	Objects []*unstructured.Unstructured
	// Digest over Objects.
	Digest manifests.Digest
}

// Cut finds the Bundles of all Rollouts in set, ordered by Rollout, and the
// objects that belong to one. A Service that several Rollouts name, and
// configuration that another workload of set uses too, stay with the reconciler.
// Cut fails when a Rollout names a workload, Service or Route that set lacks, and
// when two Rollouts name the same workload or Route: each would write its own shares into it.
func Cut(set manifests.Set) ([]Bundle, map[manifests.Ref]bool, error) {
	users := configUsers(set)
	rollouts := map[manifests.Ref]v1alpha1.Rollout{}
	workloads := map[manifests.Ref]manifests.Ref{} // to their Rollout
	for _, object := range set.Objects {
		ref := manifests.RefOf(object)
		if ref.Group != v1alpha1.Group || ref.Kind != "Rollout" {
			continue
		}
		var rollout v1alpha1.Rollout
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &rollout); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", ref, err)
		}
		workload, err := workloadOf(set, ref, rollout)
		if err != nil {
			return nil, nil, err
		}
		if other, taken := workloads[workload]; taken {
			return nil, nil, fmt.Errorf("%s: %s is moved by %s already (remove one of the two)", ref, workload, other)
		}
		workloads[workload], rollouts[ref] = ref, rollout
		for _, route := range RoutesOf(ref.Namespace, rollout.Spec) {
			if set.Find(route) == nil {
				return nil, nil, fmt.Errorf("%s: spec.routes names %s, which is not rendered", ref, route)
			}
			if by := users[route]; len(by) > 0 && by[0] != workload {
				return nil, nil, fmt.Errorf("%s: %s is moved by %s already (give each its own Route)", ref, route, workloads[by[0]])
			}
			users[route] = []manifests.Ref{workload}
		}
		for _, service := range ServicesOf(ref.Namespace, rollout.Spec) {
			if set.Find(service) == nil {
				return nil, nil, fmt.Errorf("%s: spec.services names %s, which is not rendered", ref, service)
			}
			if !slices.Contains(users[service], workload) {
				users[service] = append(users[service], workload)
			}
		}
	}
	return bundles(set, workloads, users)
}

// bundles collects, for each workload, what it alone uses.
func bundles(set manifests.Set, workloads map[manifests.Ref]manifests.Ref, users map[manifests.Ref][]manifests.Ref) ([]Bundle, map[manifests.Ref]bool, error) {
	members := map[manifests.Ref][]*unstructured.Unstructured{} // by Rollout
	bundled := map[manifests.Ref]bool{}
	for _, object := range set.Objects {
		ref := manifests.RefOf(object)
		rollout, moved := workloads[ref]
		if by := users[ref]; !moved && len(by) == 1 {
			rollout, moved = workloads[by[0]]
		}
		if moved {
			members[rollout] = append(members[rollout], object)
			bundled[ref] = true
		}
	}
	var result []Bundle
	for rollout, objects := range members {
		cut, err := manifests.NewSet(objects)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", rollout, err)
		}
		result = append(result, Bundle{Rollout: rollout, Objects: cut.Objects, Digest: cut.Digest})
	}
	slices.SortFunc(result, func(a, b Bundle) int { return a.Rollout.Compare(b.Rollout) })
	return result, bundled, nil
}

// workloadOf finds the workload that a Rollout names.
func workloadOf(set manifests.Set, ref manifests.Ref, rollout v1alpha1.Rollout) (manifests.Ref, error) {
	kind := rollout.Spec.WorkloadRef.Kind
	if kind == "" {
		kind = "Deployment"
	}
	if kind != "Deployment" && kind != "StatefulSet" {
		return manifests.Ref{}, fmt.Errorf("%s: spec.workloadRef.kind %s is not supported (use a Deployment or StatefulSet)", ref, kind)
	}
	workload := manifests.Ref{Group: "apps", Kind: kind, Namespace: ref.Namespace, Name: rollout.Spec.WorkloadRef.Name}
	if set.Find(workload) == nil {
		return manifests.Ref{}, fmt.Errorf("%s: spec.workloadRef names %s, which is not rendered", ref, workload)
	}
	return workload, nil
}

// ServicesOf lists the Services that a Rollout of a namespace names.
func ServicesOf(namespace string, rollout v1alpha1.RolloutSpec) (services []manifests.Ref) {
	for _, service := range rollout.Services {
		services = append(services, manifests.Ref{Kind: "Service", Namespace: namespace, Name: service.Name})
	}
	return services
}

// RoutesOf lists the Routes that a Rollout of a namespace names.
func RoutesOf(namespace string, rollout v1alpha1.RolloutSpec) (routes []manifests.Ref) {
	for _, route := range rollout.Routes {
		routes = append(routes, manifests.Ref{Group: gateway.Group, Kind: cmp.Or(route.Kind, "HTTPRoute"), Namespace: namespace, Name: route.Name})
	}
	return routes
}

// configUsers maps each ConfigMap and Secret that pods of set use to the objects that have these pods.
func configUsers(set manifests.Set) map[manifests.Ref][]manifests.Ref {
	users := map[manifests.Ref][]manifests.Ref{}
	for _, object := range set.Objects {
		user := manifests.RefOf(object)
		for _, path := range [][]string{
			{"spec", "template", "spec"},
			{"spec", "jobTemplate", "spec", "template", "spec"},
			{"spec"},
		} {
			pod, _, _ := unstructured.NestedMap(object.Object, path...)
			for _, used := range podConfig(pod, user.Namespace) {
				if !slices.Contains(users[used], user) {
					users[used] = append(users[used], user)
				}
			}
		}
	}
	return users
}

// podConfig lists the ConfigMaps and Secrets that a pod spec mounts or takes variables from.
func podConfig(pod map[string]any, namespace string) []manifests.Ref {
	var refs []manifests.Ref
	use := func(kind string, source map[string]any, field, nameField string) {
		if name, _, _ := unstructured.NestedString(source, field, nameField); name != "" {
			refs = append(refs, manifests.Ref{Kind: kind, Namespace: namespace, Name: name})
		}
	}
	for _, volume := range mappings(pod["volumes"]) {
		use("ConfigMap", volume, "configMap", "name")
		use("Secret", volume, "secret", "secretName")
		projected, _ := volume["projected"].(map[string]any)
		for _, source := range mappings(projected["sources"]) {
			use("ConfigMap", source, "configMap", "name")
			use("Secret", source, "secret", "name")
		}
	}
	for _, list := range []string{"initContainers", "containers"} {
		for _, container := range mappings(pod[list]) {
			for _, source := range mappings(container["envFrom"]) {
				use("ConfigMap", source, "configMapRef", "name")
				use("Secret", source, "secretRef", "name")
			}
			for _, variable := range mappings(container["env"]) {
				from, _ := variable["valueFrom"].(map[string]any)
				use("ConfigMap", from, "configMapKeyRef", "name")
				use("Secret", from, "secretKeyRef", "name")
			}
		}
	}
	return refs
}

// mappings returns the items of a list that are maps.
func mappings(list any) []map[string]any {
	items, _ := list.([]any)
	var result []map[string]any
	for _, item := range items {
		if m, is := item.(map[string]any); is {
			result = append(result, m)
		}
	}
	return result
}
