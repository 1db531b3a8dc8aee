// Package faults holds, as tests, that an agent outlives what goes wrong around it: an API server that has too much to do or
// forgets what it was asked to tell, a disk that is full, clocks that differ, and a death before its first request. Nothing is
// pruned by mistake, no other Application suffers, nothing is reverted, and what was meant to be is there in the end.
package faults
