package sandbox

import (
	"context"
	"net"
)

// DialBy replaces the way in which commands with network reach others.
func (s *Sandbox) DialBy(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	s.dial = dial
}

// Cgroup is where the cgroups of all commands of this process begin.
func (s *Sandbox) Cgroup() string { return s.cgroups.name("") }

// Permit is permit.
func Permit(address string, own []net.Addr) error { return permit(address, own) }
