// Package apps tells how an agent keeps Applications: the order of things, hooks, dependencies, owners, drift and faults.
// The API server, its controllers, the Git host and the agent are real; pods are ended by hand, since no node runs them.
package apps
