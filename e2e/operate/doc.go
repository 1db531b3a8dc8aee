// Package operate plays what operators do to agents: several of one cluster, of which one dies or stands still, newer ones over
// older ones, and the end of them.
package operate
