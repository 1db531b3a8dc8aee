// Package speed measures one agent with many Applications against a floor: a bare client that sends the same applies.
//
// Everything is real and in one run: the API server, the controllers, the Git host, the agent as a process of its own. The
// numbers that were seen are in reconciler/BENCH.md.
package speed
