// Package plan decides what an apply would change: which objects are created,
// changed, put right or deleted, and in which order. It also cuts Bundles out
// of a Set.
//
// It promises that equal inputs give equal Plans: it reads no clock and no
// cluster. It never returns a partial Plan: an object whose live state is
// Unknown must not be mistaken for one that is gone.
package plan
