// Package githost holds, as a test, the whole story where Git lives on a real Gitea: signed webhooks, pull requests, a
// protected branch, a second person's review, and reverts that are announced where people look.
package githost
