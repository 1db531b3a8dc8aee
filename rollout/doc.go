// Package rollout is the loop that moves Bundles: it brings a new version of a
// workload in, judges it, and returns traffic to the one before when it failed.
//
// What to do is decided by package analysis; this package looks, applies and
// writes down. All that it needs to go on stands in API objects, so that it may
// be killed at any point. It alone applies the objects of a Bundle, as field
// manager "slipway-rollout", and restores what others change of them. Of a
// Bundle it prunes nothing; what ran beside stable it removes again. As long as
// nothing of a Rollout changes it sends no request.
//
// The strategies: rolling leaves it to the Deployment; in batches it goes the way
// of a canary without Routes. A canary is the
// Deployment NAME-canary, with copies of the configuration of its own. Where the
// Rollout names Routes of the Gateway API (package gateway), these send to the
// Services SERVICE-stable and SERVICE-canary, each pinned to the pods of one
// version (pod-template-hash), as long as a canary runs; who calls the Service
// itself gets the replica ratio, and stable's pods alone from the moment that a
// canary is taken out. Without Routes all traffic follows the numbers
// of pods, and no weight is finer than one. Blue-green pins the Services
// themselves, and shows the new version by Services called SERVICE-canary.
//
// A canary of which no pod is left gets no traffic from Routes and Services until
// it has the pods for it again, as long as stable is there in full; nothing is
// measured meanwhile. So a version that crashes before it is judged costs people
// moments, and not the time until the verdict.
//
// What Kubernetes has to make first, like the endpoints of a Service, has the
// deadline of pods; then the Rollout pauses and says what is missing.
//
// Where the Bundle has no number of pods, an autoscaler says stable's, and the
// canary follows it; see adr/0002.
//
// A StatefulSet has one pod of each ordinal, so that nothing runs beside it: it
// takes a new version in by its partition, at once or in batches, from the
// highest ordinal down, and goes back to stable the same way. A version that
// comes while another is half in place waits until that is out again. Its pods
// use copies of their ConfigMaps and Secrets, named by content and kept for
// stable and target, so that both go forward and back together; the objects
// themselves stay stable's. On the way back, and while no version has passed
// yet, pods of a version that is given up are deleted where they are not ready:
// a StatefulSet that keeps the order would wait for them for ever. Its volumes
// are never touched: what a version has written to them stays.
//
// What is stable keeps the names of its configuration: a pod of it that is not
// replaced while the workload is updated may see the new version's ConfigMap.
// The pods of a Deployment carry the digest of their configuration, so that
// another one is another version, with each strategy. A workload that is put under
// a Rollout keeps its pods: only another configuration than the one that they run
// with is marked so. When it is taken out, pods with the mark are replaced once. A
// strategy that changes in the middle starts over from stable.
//
// A Fail is written down with what the version's pods say, which is gone with them:
// in at most half a second, without the values of Secrets (symptoms.go).
// Counters that a sequential test compares are remembered in memory only: after
// a restart counting begins anew, and what was found so far holds.
//
// Besides the agent's Prometheus a metric may ask another one or any server over
// HTTP, with a Secret of the Rollout's namespace that is read each time, or run a
// Job for each look. A Job is named after its look, so that a restart finds it
// instead of starting another one; it goes when the look is on record.
//
// Webhooks have a say on the way (analysis.Hook), and are told what happens. The
// latter stands in the status until they have taken it, so that no kill loses it,
// and is told beside the loop, which never waits for it.
package rollout
