// Package reconciler keeps Applications applied: it follows GitSources, renders,
// plans, applies, heals drift, judges health, marks what failed and has it reverted in Git.
//
// A reconciliation is a function of what stands in Git, in the API server and in
// the watches; nothing that counts lives in memory, so a process may be killed
// anywhere and started again. In steady state it sends no request.
package reconciler
