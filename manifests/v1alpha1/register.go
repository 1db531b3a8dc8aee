package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of Slipway.
const Group = "slipway.dev"

// GroupVersion returns slipway.dev/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: "v1alpha1"}
}

// AddToScheme registers the types of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(
		GroupVersion(),
		&GitSource{}, &GitSourceList{},
		&Application{}, &ApplicationList{},
		&Inventory{}, &InventoryList{},
		&Rollout{}, &RolloutList{},
		&ImagePolicy{}, &ImagePolicyList{},
		&OCISource{}, &OCISourceList{},
		&ChartSource{}, &ChartSourceList{},
		&ApplicationSet{}, &ApplicationSetList{},
		&Notification{}, &NotificationList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
