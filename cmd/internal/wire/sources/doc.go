// Package sources holds the tests of how an agent follows Git: its real loops in this process, a real
// API server, real Git hosts. There is nothing here but tests: an agent is whole only in wire, of which
// one process can run one.
package sources
