package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// InventoryShardSize is the most entries that one Inventory object holds.
const InventoryShardSize = 1000

// Inventory is one shard of what an Application owns in the cluster. It is
// named APPLICATION-N, is owned by its Application and belongs to the agent:
// losing it loses nothing that labels and Git cannot give back.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=sinv,categories=slipway
// +kubebuilder:printcolumn:name="Application",type=string,JSONPath=`.spec.application`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Inventory struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec InventorySpec `json:"spec"`
}

// InventorySpec lists the objects of one shard.
type InventorySpec struct {
	Application string `json:"application"`
	// +listType=atomic
	Entries []InventoryEntry `json:"entries,omitempty"`
}

// InventoryEntry is one owned object with what is needed to see drift without reading it.
type InventoryEntry struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Want is the digest of what was asked for: the object as it was sent.
	Want string `json:"want"`
	// Fields is the digest of our own managedFields entry as the API server returned it, without its time.
	Fields string `json:"fields"`
	// Bundled says that the object is moved by a Rollout: the reconciler neither patches nor heals it, it only prunes it.
	Bundled bool `json:"bundled,omitempty"`
	// Done says that the object is a Job that was seen to complete.
	Done bool `json:"done,omitempty"`
}

// InventoryList is a list of Inventories.
//
// +kubebuilder:object:root=true
type InventoryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Inventory `json:"items"`
}
