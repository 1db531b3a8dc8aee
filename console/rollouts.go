package console

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// PathRollouts takes a SignedRollouts of an agent, and gives a RolloutList; below it is one Rollout, as
// CLUSTER/NAMESPACE/NAME. What a person wants of a Rollout (promote, pause, abort, retry) is not told to this server: it has
// access to no cluster. That is said to the Kubernetes API of the Rollout's cluster, by annotations (StepApproval, RolloutOrder).
const PathRollouts = "/v1/rollouts"

// Enrolled knows the agents of clusters.
type Enrolled interface {
	// AgentKeys are the public keys under which repositories enrol a cluster's agent; none where no one does. An error means
	// that nobody knows.
	AgentKeys(ctx context.Context, cluster string) ([]ed25519.PublicKey, error)
}

// RolloutList is what the agents of all clusters report.
type RolloutList struct {
	Rollouts []ReportedRollout `json:"rollouts"`
}

// ReportedRollout is a Rollout as the agent of a cluster last saw it.
type ReportedRollout struct {
	Cluster string `json:"cluster"`
	// At is when the agent looked, by its clock, ReceivedAt when this server heard of it.
	At         time.Time `json:"at"`
	ReceivedAt time.Time `json:"receivedAt"`
	v1alpha1.RolloutState
}

// rollouts keeps the newest report of each cluster. Only enrolled clusters have one.
type rollouts struct {
	now  func() time.Time
	most int

	mu     sync.Mutex
	newest map[string]receivedRollouts
}

type receivedRollouts struct {
	v1alpha1.RolloutReport
	at time.Time
}

// put keeps a report unless a newer one is here: an old one may be sent by anybody who has seen it. It returns false if there
// is no room for another cluster.
func (s *rollouts) put(report v1alpha1.RolloutReport) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, found := s.newest[report.Cluster]
	switch {
	case found && !report.At.After(known.At):
		return true
	case !found && len(s.newest) >= s.most:
		return false
	}
	s.newest[report.Cluster] = receivedRollouts{report, s.now()}
	return true
}

// all are the Rollouts that are known, in order.
func (s *rollouts) all() []ReportedRollout {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []ReportedRollout{}
	for _, received := range s.newest {
		for _, state := range received.Rollouts {
			out = append(out, ReportedRollout{received.Cluster, received.At, received.at, state})
		}
	}
	slices.SortFunc(out, func(a, b ReportedRollout) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// rolloutRoutes are those about Rollouts.
func (s *Server) rolloutRoutes() []route {
	routes := []route{
		{"POST " + PathRollouts, NoScope, s.postRollouts}, // signed by its agent
		{"GET " + PathRollouts, Read, s.getRollouts},
		{"GET " + PathRollouts + "/{cluster}/{namespace}/{name}", Read, s.getRollout},
	}
	for i := range routes {
		if s.enrolled == nil {
			routes[i].handler = missing("this server knows no agents", "'slipway rollout status' reads the cluster itself")
		}
	}
	return routes
}

func (s *Server) postRollouts(w http.ResponseWriter, r *http.Request) {
	var signed v1alpha1.SignedRollouts
	if !s.read(w, r, &signed) {
		return
	}
	report, err := undo.ReadRollouts(signed)
	if err == nil {
		err = environment.CheckName("cluster", report.Cluster)
	}
	switch {
	case err != nil:
		answer(w, http.StatusBadRequest, Answer{Error: brief(err.Error())})
		return
	case report.At.IsZero() || report.At.After(s.rollouts.now().Add(skew)):
		answer(w, http.StatusBadRequest, Answer{Error: "at: missing or in the future (check the cluster's clock)"})
		return
	}
	keys, err := s.enrolled.AgentKeys(r.Context(), report.Cluster)
	switch {
	case err != nil:
		s.failed(w, r, err)
	case !slices.ContainsFunc(keys, func(key ed25519.PublicKey) bool { return undo.VerifyRollouts(key, signed) == nil }):
		answer(w, http.StatusForbidden, Answer{Error: "cluster " + report.Cluster + ": no key that is enrolled for it has signed this (" + environment.AgentKeyPath(report.Cluster) + ")"})
	case !s.rollouts.put(report):
		answer(w, http.StatusTooManyRequests, Answer{Error: "too many clusters report to this server"})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) getRollouts(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, RolloutList{s.rollouts.all()})
}

func (s *Server) getRollout(w http.ResponseWriter, r *http.Request) {
	cluster, namespace, name := r.PathValue("cluster"), r.PathValue("namespace"), r.PathValue("name")
	for _, one := range s.rollouts.all() {
		if one.Cluster == cluster && one.Namespace == namespace && one.Name == name {
			answer(w, http.StatusOK, one)
			return
		}
	}
	answer(w, http.StatusNotFound, Answer{Error: brief("rollout " + namespace + "/" + name + " of cluster " + cluster + ": no agent has reported it (GET " + PathRollouts + " lists those that are known)")})
}
