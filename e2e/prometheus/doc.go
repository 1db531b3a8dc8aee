// Package prometheus runs a real Prometheus for tests: Debian's, unpacked into the user's cache the first time, which
// takes apt-get and no root.
package prometheus
