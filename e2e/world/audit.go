package world

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// Request is one that the API server answered.
type Request struct {
	User      string
	Verb      string
	Resource  string // with the subresource, "deployments/status"
	Namespace string
	Name      string
	At        time.Time
	Code      int // HTTP status of the answer
}

// String reads like "patch deployments shop/web".
func (r Request) String() string {
	return fmt.Sprintf("%s %s %s/%s", r.Verb, r.Resource, r.Namespace, r.Name)
}

// Requests reads from the audit log what the agent's user asked for since a time,
// watches and leases left out. The World must have been started with AuditLog.
func (w *World) Requests(since time.Time) ([]Request, error) { return w.RequestsOf(AgentUser, since) }

// RequestsOf is Requests of another user.
func (w *World) RequestsOf(user string, since time.Time) ([]Request, error) {
	file, err := os.Open(w.Cluster.AuditLog())
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	defer file.Close()
	var requests []Request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var event struct {
			Verb                     string
			User                     struct{ Username string }
			ObjectRef                struct{ Resource, Subresource, Namespace, Name string }
			ResponseStatus           struct{ Code int }
			RequestReceivedTimestamp time.Time
		}
		if json.Unmarshal(lines.Bytes(), &event) != nil || event.User.Username != user || event.Verb == "watch" ||
			event.ObjectRef.Resource == "leases" || event.RequestReceivedTimestamp.Before(since) {
			continue
		}
		requests = append(requests, Request{
			User: event.User.Username, Verb: event.Verb, Namespace: event.ObjectRef.Namespace, Name: event.ObjectRef.Name,
			Resource: strings.TrimSuffix(event.ObjectRef.Resource+"/"+event.ObjectRef.Subresource, "/"), At: event.RequestReceivedTimestamp, Code: event.ResponseStatus.Code,
		})
	}
	return requests, lines.Err()
}

// Only keeps the requests of a verb.
func Only(requests []Request, verb string) []Request {
	var kept []Request
	for _, r := range requests {
		if r.Verb == verb {
			kept = append(kept, r)
		}
	}
	return kept
}
