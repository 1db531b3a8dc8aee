// Package revert holds, as tests, how bad versions come back through Git, however they
// came in: by merge, squash or batch, from a shared base, in the middle of other
// people's commits, with the Git host down, by an agent alone and by the server.
package revert
