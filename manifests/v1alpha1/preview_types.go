package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PullRequestHost is a kind of Git host, by the API that it speaks.
type PullRequestHost string

// HostGitea is a Gitea or a Forgejo.
const HostGitea PullRequestHost = "gitea"

// PullRequestGenerator has a preview for each open pull request: an Application that stands at the newest commit of it, and
// goes with it. The repository is that of the GitSource which template.spec.sourceRef names; its URL, https or http, leads to
// the API of the host, too, and its Secret (username and password, or bearerToken) must be good for a token that may read
// pull requests.
//
// {{name}} is pr-12 for pull request 12; {{values.number}} is its number, {{values.branch}} and {{values.commit}} where it
// stands, {{values.slug}} the branch as a DNS label of at most 40 characters, which two branches may share;
// {{values.author}} and {{values.title}} are as the host has them. For each Application the set makes a GitSource of the same
// name, which is the one of the template but stands at the commit.
//
// A pull request from a fork, or from somebody who may not push to the repository, never has a preview. Nor is anything
// pushed to Git when a preview fails.
type PullRequestGenerator struct {
	// Host says what the repository lives on: gitea, which is a Forgejo as well.
	// +kubebuilder:validation:Enum=gitea
	Host PullRequestHost `json:"host"`
	// Labels that a pull request must have, all of them.
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MinLength=1
	// +listType=set
	// +optional
	Labels []string `json:"labels,omitempty"`
	// Base is the branch that they go to; default the one that the source follows.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Base string `json:"base,omitempty"`
	// Max is how many previews there are at one time, those of the pull requests that were updated last.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=10
	Max int `json:"max,omitempty"`
	// MaxAge of a preview since its pull request was last touched on the host.
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="at least 1m"
	MaxAge metav1.Duration `json:"maxAge,omitempty"`
	// Interval between looks at the host. It is looked at sooner when the source moves, as by a merge.
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="at least 10s: the host has others to serve"
	Interval metav1.Duration `json:"interval,omitempty"`
}

// ReasonPullRequestsUnread says that the host did not give the pull requests of an ApplicationSet, or not all of them.
const ReasonPullRequestsUnread = "PullRequestsUnread"
