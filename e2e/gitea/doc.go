// Package gitea runs a real Gitea for tests: a Git host with pull requests, reviews, branch protection and signed webhooks.
//
// It is built from its Go module into the user's cache the first time, five minutes on two cores, and needs Go and gcc. Its
// pages come without styles, because the front end is not in the module: an API for tests, not a page to show people.
package gitea
