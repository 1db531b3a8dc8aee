// Package expression evaluates the CEL expressions that people write about objects: whether one is ready, or healthy, or
// which number an answer holds.
//
// It promises to end: an expression is bounded in length, and an evaluation in cost. What cannot be evaluated is an error,
// never an answer: a field that is not there yet must not look like a failure.
package expression
