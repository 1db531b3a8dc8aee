// Package kill holds, as tests, that processes may die at any moment: each commit is
// written once, each revert is pushed once, and the end is the same.
package kill
