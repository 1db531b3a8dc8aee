// Package v1alpha1 holds the API types of slipway.dev/v1alpha1: GitSource,
// OCISource, ChartSource, Application, Inventory, Rollout and ImagePolicy, with their condition types and reasons.
//
// The types say what a person writes and what an agent reports. They decide nothing.
//
// +kubebuilder:object:generate=true
// +groupName=slipway.dev
package v1alpha1
