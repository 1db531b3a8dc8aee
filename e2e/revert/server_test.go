package revert

import (
	"strings"
	"time"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// byServer has the agent started again with read access only: a server pushes what it asks for.
func (s story) byServer(alone *world.Process) {
	s.must(alone.Stop(30 * time.Second))
	const token = "the server's token"
	s.NeedToken(token)
	server, err := s.StartServer(s.Context(), world.ServerOptions{Token: token})
	s.must(err)
	key := s.enrol()
	agent, err := s.StartAgent(s.Context(), world.AgentOptions{Args: []string{"--server", server.URL, "--server-ca", server.Trust, "--key", key}})
	s.must(err)
	defer agent.Kill()
	defer server.Kill()

	bad := s.commit("Promote served", s.use("served", s.bad))
	s.comesBack("served", bad, s.bad, s.good)

	// A wider revert is accepted from the agent only as a branch for a person.
	bad = s.commit("Change the base", world.Write("apps/leaned/base/web.yaml", strings.Replace(workload, "image: web", "image: \""+s.bad+"\"", 1)+rollout))
	s.stands("leaned", v1alpha1.ReasonRevertNeedsPerson, s.good)
	if n := len(s.reverts("leaned", bad)); n != 0 {
		s.Fatalf("%d reverts were pushed to the followed branch", n)
	}
	s.agree("leaned")
	s.runs("leaned", s.good)
}

// enrol makes a key for the agent, commits its public half and returns the file of the private one.
func (s story) enrol() string {
	s.Helper()
	file, change, err := s.AgentKey(s.Context())
	s.must(err)
	s.commit("Enrol the agent", change)
	return file
}
