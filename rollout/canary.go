package rollout

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// canaryName names the workload beside stable.
func canaryName(rollout *v1alpha1.Rollout) string {
	return rollout.Spec.WorkloadRef.Name + canarySuffix
}

const canarySuffix = "-canary"

// canaryLabel is the value of LabelCanary.
func canaryLabel(rollout *v1alpha1.Rollout) string { return labelValue(rollout.Spec.WorkloadRef.Name) }

// labelValue is a name as the value of a label, into which long ones do not fit.
func labelValue(name string) string {
	if len(name) <= validation.LabelValueMaxLength {
		return name
	}
	return manifests.DigestOf([]byte(name)).Short()
}

// canaryForms are the objects of a Bundle as they run beside stable: the configuration in copies of this Bundle, so that
// stable keeps its own, and the workload under another name, which uses the copies. What a Service sends to is not
// among them. The pods keep their labels, and with one more they are told from stable's.
func canaryForms(bundle []*unstructured.Unstructured, rollout *v1alpha1.Rollout, a analysis.Arrangement) []*unstructured.Unstructured {
	suffix := canarySuffix + "-" + manifests.Digest(a.Canary.Digest).Short() // NAME-DIGEST may be where the Bundle's Secrets are stored
	renamed, copies := map[string]string{}, []*unstructured.Unstructured{}
	for _, object := range bundle {
		if isConfiguration(object) {
			renamed[object.GetKind()+"/"+object.GetName()] = object.GetName() + suffix
		}
	}
	for _, form := range formsOf(bundle, rollout, analysis.Placed{Bundle: a.Canary.Digest}) {
		name, is := renamed[form.GetKind()+"/"+form.GetName()]
		isWorkload := form.GetKind() == "Deployment"
		if !is && !isWorkload {
			continue
		}
		form.SetName(name)
		if isWorkload {
			form.SetName(canaryName(rollout))
			unpaused(form)
			resize(form, a.CanaryReplicas)
			label := map[string]any{manifests.LabelCanary: canaryLabel(rollout)}
			merge(form, label, "spec", "selector", "matchLabels")
			merge(form, label, "spec", "template", "metadata", "labels")
			rename(form.Object["spec"], renamed)
		}
		copies = append(copies, besides(form, rollout))
	}
	return copies
}

// besides marks an object that goes again.
func besides(form *unstructured.Unstructured, rollout *v1alpha1.Rollout) *unstructured.Unstructured {
	labels := form.GetLabels()
	labels[manifests.LabelCanary] = canaryLabel(rollout)
	form.SetLabels(labels)
	form.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion().String(), Kind: "Rollout", Name: rollout.Name, UID: rollout.UID,
	}})
	return form
}

func resize(deployment *unstructured.Unstructured, replicas int32) {
	merge(deployment, map[string]any{"replicas": int64(replicas)}, "spec")
}

// merge sets fields of a map at path. What is no map is left for the API server to refuse.
func merge(object *unstructured.Unstructured, fields map[string]any, path ...string) {
	at, _, err := unstructured.NestedMap(object.Object, path...)
	if err != nil {
		return
	}
	if at == nil {
		at = map[string]any{}
	}
	maps.Copy(at, fields)
	_ = unstructured.SetNestedMap(object.Object, at, path...) // err: what is above is no map
}

// rename points references to configuration at its copies. renamed is by "Kind/name".
func rename(value any, renamed map[string]string) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			rename(item, renamed)
		}
	case map[string]any:
		for field, inner := range value {
			source, _ := inner.(map[string]any)
			for _, nameField := range []string{"name", "secretName"} {
				if name, is := source[nameField].(string); is && renamed[referredKind(field)+"/"+name] != "" {
					source[nameField] = renamed[referredKind(field)+"/"+name]
				}
			}
			rename(inner, renamed)
		}
	}
}

// referredKind is what a field of a pod refers to. A Secret is called secretName in a volume and name elsewhere.
func referredKind(field string) string {
	switch field {
	case "configMap", "configMapRef", "configMapKeyRef":
		return "ConfigMap"
	case "secret", "secretRef", "secretKeyRef":
		return "Secret"
	}
	return ""
}

// serviceOf is a Service that sends to the pods of one ReplicaSet alone, inside of the cluster.
func serviceOf(service *unstructured.Unstructured, rollout *v1alpha1.Rollout, name, hash string) *unstructured.Unstructured {
	form := service.DeepCopy()
	form.SetName(name)
	spec, _, _ := unstructured.NestedMap(form.Object, "spec")
	kept := map[string]any{}
	for _, field := range []string{"ports", "selector", "sessionAffinity", "publishNotReadyAddresses"} {
		if value, is := spec[field]; is {
			kept[field] = value
		}
	}
	if spec["clusterIP"] == "None" {
		kept["clusterIP"] = "None"
	}
	ports, _ := kept["ports"].([]any)
	for _, port := range ports {
		if port, is := port.(map[string]any); is {
			delete(port, "nodePort")
		}
	}
	form.Object["spec"] = kept
	pin(form, hash)
	return besides(form, rollout)
}

// pin makes a Service send to the pods of one ReplicaSet alone.
func pin(service *unstructured.Unstructured, hash string) {
	merge(service, map[string]any{labelHash: hash}, "spec", "selector")
}
