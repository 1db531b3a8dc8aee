package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Notification tells people, or a program of theirs, what becomes of Applications and Rollouts: each change of a reason in a
// condition Ready, and that one of them is gone. What changes while no agent runs is not told, and what a receiver does not take
// within a minute or two is dropped: the conditions themselves are what counts.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=slipway
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.spec.provider`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type Notification struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   NotificationSpec   `json:"spec"`
	Status NotificationStatus `json:"status,omitempty"`
}

// NotificationSpec says whom to tell what.
type NotificationSpec struct {
	// Provider is what the receiver understands: an incoming webhook of Slack (or of what takes the same), a webhook of your own,
	// the API of an Alertmanager, or statuses at the commits of a Gitea or Forgejo that Applications follow.
	Provider NotificationProvider `json:"provider"`
	// SecretRef is a Secret of this namespace. slack, webhook and alertmanager take from it the URL as address; webhook also
	// key, by which X-Signature (sha256=HEX, an HMAC of the body) is made; alertmanager also token, a bearer's; commitStatus
	// takes username and token, and sets a status at the commit that an Application's objects come from. An alert ends when the trouble does, and at the latest a day after it was last told.
	SecretRef LocalRef `json:"secretRef"`
	// Applications are names; without names and without selector all are told of.
	// +kubebuilder:validation:MaxItems=100
	// +optional
	Applications []string `json:"applications,omitempty"`
	// Selector chooses Applications by labels, besides those that are named.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// Reasons of the condition Ready that are told, such as RenderFailed or Succeeded; without any, all but those of mere
	// progress.
	// +kubebuilder:validation:MaxItems=50
	// +optional
	Reasons []string `json:"reasons,omitempty"`
	// Template of the text (Go text/template), with the fields .Cluster .Kind .Namespace .Name .Application .Environment
	// .Ready .Reason .Message .Revision and the function short, which abbreviates a revision. It has if and with, but no loops,
	// no templates of its own, and no functions that make text longer.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Template string `json:"template,omitempty"`
	// Interval in which the same is not told again of an object, unless something else was told of it meanwhile; 0s tells it
	// each time.
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('168h')",message="0s to 168h"
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Limit bounds how many messages go out.
	// +kubebuilder:default={burst: 20, every: "10s"}
	// +optional
	Limit NotificationLimit `json:"limit,omitzero"`
}

// NotificationProvider is a kind of receiver.
//
// +kubebuilder:validation:Enum=slack;webhook;alertmanager;commitStatus
type NotificationProvider string

// The providers.
const (
	NotifySlack        NotificationProvider = "slack"
	NotifyWebhook      NotificationProvider = "webhook"
	NotifyAlertmanager NotificationProvider = "alertmanager"
	NotifyCommitStatus NotificationProvider = "commitStatus"
)

// NotificationLimit is a bucket of messages. What finds it empty waits, of each object the newest.
type NotificationLimit struct {
	// Burst is how many may go out at once.
	// +kubebuilder:default=20
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Burst int `json:"burst,omitempty"`
	// Every is how long it takes until one more may.
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms')",message="at least 100ms"
	// +optional
	Every metav1.Duration `json:"every,omitzero"`
}

// NotificationStatus says whether the receiver takes what it is told.
type NotificationStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// Reasons of the condition Ready of a Notification.
const (
	ReasonNotificationInvalid = "Invalid"       // spec or Secret: somebody has to change it
	ReasonNotificationFailing = "Undeliverable" // the receiver does not take it
	ReasonNotificationTaken   = "Delivered"
	ReasonNotificationIdle    = "Idle" // there was nothing to tell yet
)

// NotificationList is a list of Notifications.
//
// +kubebuilder:object:root=true
type NotificationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Notification `json:"items"`
}
