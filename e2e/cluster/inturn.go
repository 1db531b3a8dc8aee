package cluster

import (
	"net/http"
	"strings"
	"sync"
)

// inTurn lets requests to next look at the store one after the other; bodies are still sent and received in parallel.
// olareg 0.2.2 reads and writes whether a repository exists without a lock (store/dir.go, dirRepo.exists), which the
// race detector reports in every test that pushes two layers at once. A request has its turn until it begins to
// answer; carrying a blob in an upload that has begun needs none, since it knows its repository.
func inTurn(next http.Handler) http.Handler {
	var turn sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		carrying := r.Method == http.MethodPatch || r.Method == http.MethodPut
		if carrying && strings.Contains(r.URL.Path, "/blobs/uploads/") {
			next.ServeHTTP(w, r)
			return
		}
		turn.Lock()
		t := &turnWriter{ResponseWriter: w, end: sync.OnceFunc(turn.Unlock)}
		defer t.end()
		next.ServeHTTP(t, r)
	})
}

// turnWriter ends the turn at the first byte of the answer.
type turnWriter struct {
	http.ResponseWriter
	end func()
}

func (t *turnWriter) WriteHeader(status int) {
	t.end()
	t.ResponseWriter.WriteHeader(status)
}

func (t *turnWriter) Write(b []byte) (int, error) {
	t.end()
	return t.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the real writer.
func (t *turnWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }
