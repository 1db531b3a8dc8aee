package console

import (
	_ "embed"
	"net/http"
)

// openAPI describes every route of this package; a test holds it to that.
//
//go:embed openapi.json
var openAPI []byte

// route is one method and path, and what its caller must be allowed to do.
type route struct {
	pattern string
	scope   Scope
	handler http.HandlerFunc
}

// routes are those of the API, without the probes.
func (s *Server) routes() []route {
	all := []route{
		{"POST " + PathReverts, NoScope, s.postRevert}, // signed by its agent
		{"POST " + PathReports, NoScope, s.postReport},
		{"GET " + PathReports, NoScope, s.getReports},
		{"GET " + PathNudges, NoScope, s.getNudges},
		{"POST " + PathHooks + "{name}", NoScope, s.postHook}, // signed by its host
		{"GET " + PathOpenAPI, NoScope, getOpenAPI},
		{"GET " + PathApplications, Read, s.getApplications},
	}
	trace := s.getTrace
	if s.tracer == nil {
		trace = missing("this server tells no chains", "'slipway trace' reads Git and the cluster itself")
	}
	all = append(all, route{"GET " + PathTrace + "{subject...}", Read, trace})
	all = append(all, s.rolloutRoutes()...)
	building := []route{
		{"GET " + PathRuns, Read, s.getRuns},
		{"GET " + PathRuns + "/{id}", Read, s.getRun},
		{"GET " + PathRuns + "/{id}/jobs", Read, s.getJobs},
		{"GET " + PathRuns + "/{id}/jobs/{job}/logs", Read, s.getLogs},
		{"POST " + PathRuns + "/{id}/cancel", Write, s.cancelRun},
		{"POST " + PathRuns + "/{id}/retry", Write, s.retryRun},
	}
	for _, r := range building {
		if s.runs == nil {
			r.handler = missing("this server builds nothing", "start it with --config FILE that names sources")
		}
		all = append(all, r)
	}
	return all
}

func (s *Server) postHook(w http.ResponseWriter, r *http.Request) {
	if s.hooks == nil {
		answer(w, http.StatusNotFound, Answer{Error: "this server takes no webhooks (give a source one in its configuration)"})
		return
	}
	s.hooks.ServeHTTP(w, r)
}

func getOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(openAPI) // the client has gone
}
