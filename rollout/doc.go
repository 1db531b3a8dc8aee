// Package rollout is the loop that moves Bundles: it brings a new version of a
// workload in, judges it, and returns traffic to the one before when it failed.
//
// What to do is decided by package analysis; this package looks, applies and
// writes down. All that it needs to go on stands in API objects, so that it may
// be killed at any point. It alone applies the objects of a Bundle, as field
// manager "slipway-rollout", and restores what others change of them. It prunes
// nothing. As long as nothing of a Rollout changes it sends no request.
//
// It knows the rolling strategy. Configuration keeps its names: a Pod that is
// not replaced may see the new version's ConfigMap.
package rollout
