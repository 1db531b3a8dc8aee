package render

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-cd/slipway/manifests"
)

// finish gives objects their namespace and the label of the Application.
func finish(objects []located, spec Spec) error {
	cluster := clusterScoped(objects)
	for _, one := range objects {
		if err := metadataOf(one); err != nil {
			return err
		}
		object := one.object
		switch {
		case cluster[object.GroupVersionKind().GroupKind()]:
			object.SetNamespace("") // the API server drops it as well; a Ref must not have it
		case object.GetNamespace() == "" && spec.Namespace != "":
			object.SetNamespace(spec.Namespace)
		}
		labels := object.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[manifests.LabelApplication] = spec.Application
		object.SetLabels(labels)
	}
	return nil
}

// metadataOf checks the fields that are about to be written, which the setters
// of unstructured would overwrite silently.
func metadataOf(one located) error {
	content := one.object.Object
	metadata, ok := content["metadata"].(map[string]any)
	if !ok {
		return one.err(fmt.Errorf("%s: metadata is required", one.object.GetKind()))
	}
	name, ok := metadata["name"].(string)
	if !ok || name == "" {
		return one.err(fmt.Errorf("%s: metadata.name is required and is a string (generateName cannot be applied)", one.object.GetKind()))
	}
	if namespace, given := metadata["namespace"]; given && namespace != nil {
		if _, ok := namespace.(string); !ok {
			return one.err(fmt.Errorf("%s %s: metadata.namespace is not a string", one.object.GetKind(), name))
		}
	}
	for _, field := range []string{"labels", "annotations"} {
		switch values := metadata[field].(type) {
		case nil:
			delete(metadata, field)
		case map[string]any:
			for key, value := range values {
				if _, ok := value.(string); !ok {
					return one.err(fmt.Errorf("%s %s: metadata.%s[%s] is not a string (put it in quotes)", one.object.GetKind(), name, field, key))
				}
			}
		default:
			return one.err(errors.New("metadata." + field + " is not a mapping"))
		}
	}
	return nil
}

// clusterScoped returns the kinds without a namespace: those of Kubernetes, and
// those of the CustomResourceDefinitions among objects. A kind that is in
// neither is taken for namespaced.
func clusterScoped(objects []located) map[schema.GroupKind]bool {
	cluster := map[schema.GroupKind]bool{}
	for group, kinds := range map[string][]string{
		"":                             {"Namespace", "Node", "PersistentVolume", "ComponentStatus"},
		"admissionregistration.k8s.io": {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"},
		"apiextensions.k8s.io":         {"CustomResourceDefinition"},
		"apiregistration.k8s.io":       {"APIService"},
		"certificates.k8s.io":          {"CertificateSigningRequest", "ClusterTrustBundle"},
		"flowcontrol.apiserver.k8s.io": {"FlowSchema", "PriorityLevelConfiguration"},
		"gateway.networking.k8s.io":    {"GatewayClass"},
		"internal.apiserver.k8s.io":    {"StorageVersion"},
		"networking.k8s.io":            {"IngressClass", "IPAddress", "ServiceCIDR"},
		"node.k8s.io":                  {"RuntimeClass"},
		"policy":                       {"PodSecurityPolicy"},
		"rbac.authorization.k8s.io":    {"ClusterRole", "ClusterRoleBinding"},
		"resource.k8s.io":              {"DeviceClass", "ResourceSlice", "DeviceTaintRule"},
		"scheduling.k8s.io":            {"PriorityClass"},
		"storage.k8s.io":               {"StorageClass", "VolumeAttachment", "CSIDriver", "CSINode", "VolumeAttributesClass"},
		"storagemigration.k8s.io":      {"StorageVersionMigration"},
		"snapshot.storage.k8s.io":      {"VolumeSnapshotClass", "VolumeSnapshotContent"},
		"cert-manager.io":              {"ClusterIssuer"},
	} {
		for _, kind := range kinds {
			cluster[schema.GroupKind{Group: group, Kind: kind}] = true
		}
	}
	for _, one := range objects {
		if gvk := one.object.GroupVersionKind(); gvk.Group != "apiextensions.k8s.io" || gvk.Kind != "CustomResourceDefinition" {
			continue
		}
		spec, _ := one.object.Object["spec"].(map[string]any)
		names, _ := spec["names"].(map[string]any)
		group, _ := spec["group"].(string)
		kind, _ := names["kind"].(string)
		cluster[schema.GroupKind{Group: group, Kind: kind}] = spec["scope"] == "Cluster"
	}
	return cluster
}
