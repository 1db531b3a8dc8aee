// Package courses is a table, as tests: each strategy of a Rollout in each of its phases, while something goes wrong. The agent
// is killed at named points; the API server, Prometheus, the Git host and the registry go away and come back; nodes and
// quotas are in the way. Whatever happens a version ends as without it: a good one runs everywhere and nothing beside it; a
// failing one is taken back by one commit, and gets no traffic after its verdict; what is not the version's fault is waited
// for.
//
// Pods are simulated and no gateway runs: what counts is what the API server is told.
package courses
