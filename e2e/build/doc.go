// Package build tests the way from a push to a promotion with real processes: server, workers, registry and Git host.
package build
