package console

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/promoter/environment"
)

// Report is the state of one cluster's Applications, as its agent saw it.
type Report struct {
	Cluster      string        `json:"cluster"`
	At           time.Time     `json:"at"`
	Applications []Application `json:"applications"`
}

// Application is one line of a Report.
type Application struct {
	Name        string `json:"name"`
	App         string `json:"app"`
	Environment string `json:"environment,omitempty"`
	Path        string `json:"path"`
	Revision    string `json:"revision,omitempty"`
	SetDigest   string `json:"setDigest,omitempty"`
	Healthy     bool   `json:"healthy"`
	Message     string `json:"message,omitempty"`
}

// Received is a Report with the time at which it came.
type Received struct {
	Report
	ReceivedAt time.Time `json:"receivedAt"`
}

const (
	// skew is how far a cluster's clock may be ahead: a report from the future would outlive all that follow.
	skew = 5 * time.Minute
	// stale is when a silent cluster makes room for another one.
	stale = 24 * time.Hour
)

// reports keeps the newest report of each cluster. Its size is bounded by the number of clusters times maxBody.
type reports struct {
	now  func() time.Time
	most int

	mu     sync.Mutex
	newest map[string]Received
}

func newReports(now func() time.Time, most int) *reports {
	return &reports{now: now, most: most, newest: map[string]Received{}}
}

// put keeps r unless a newer one is here, and returns false if there is no room
// for another cluster. Known clusters are never displaced by unknown ones.
func (s *reports) put(r Report) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	known, found := s.newest[r.Cluster]
	if found && r.At.Before(known.At) {
		return true
	}
	if !found && len(s.newest) >= s.most && !s.makeRoom(now) {
		return false
	}
	s.newest[r.Cluster] = Received{Report: r, ReceivedAt: now}
	return true
}

// makeRoom forgets clusters that are silent for long.
func (s *reports) makeRoom(now time.Time) bool {
	before := len(s.newest)
	for name, r := range s.newest {
		if now.Sub(r.ReceivedAt) > stale {
			delete(s.newest, name)
		}
	}
	return len(s.newest) < before
}

func (s *reports) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.newest)
}

// all returns the reports by cluster.
func (s *reports) all() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Received, 0, len(s.newest))
	for _, r := range s.newest {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Received) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return out
}

func (s *Server) postReport(w http.ResponseWriter, r *http.Request) {
	var report Report
	if !s.read(w, r, &report) {
		return
	}
	if err := environment.CheckName("cluster", report.Cluster); err != nil {
		answer(w, http.StatusBadRequest, Answer{Error: brief(err.Error())})
		return
	}
	if report.At.IsZero() || report.At.After(s.reports.now().Add(skew)) {
		answer(w, http.StatusBadRequest, Answer{Error: "at: missing or in the future (check the cluster's clock)"})
		return
	}
	if !s.reports.put(report) {
		s.log.Info("report dropped: too many clusters", "cluster", report.Cluster)
		answer(w, http.StatusTooManyRequests, Answer{Error: "too many clusters report to this server"})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) getReports(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, struct {
		Reports []Received `json:"reports"`
	}{s.reports.all()})
}
