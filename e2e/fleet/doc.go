// Package fleet holds, as tests, what an agent costs with a hundred Applications:
// nothing while nothing happens, what changed when something does, and how fast it
// puts right what others changed by hand.
//
// Requests are counted in the API server's audit log, renders on the agent's own metrics.
package fleet
