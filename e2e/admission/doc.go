// Package admission tells how an agent decides which images it lets into a cluster.
package admission
