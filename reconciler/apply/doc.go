// Package apply carries out Plans on a cluster and sees what becomes of them:
// observe, server-side apply, prune, wait, watch, health, dry-run.
//
// It promises that reading what is watched costs no request, and that what
// could not be read is reported as Unknown, never as absent. It decides
// nothing: that is package plan's.
package apply
