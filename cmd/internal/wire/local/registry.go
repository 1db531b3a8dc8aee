package local

import (
	"net/http"
	"strings"
	"sync"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// registry keeps images below dir. Nothing is collected: what an old commit names must stay.
func registry(dir string) (http.Handler, func() error) {
	backend := olareg.New(config.Config{Storage: config.ConfigStorage{
		StoreType: config.StoreDir, RootDir: dir, GC: config.ConfigGC{Frequency: -1},
	}})
	return oneByOne(backend), backend.Close
}

// oneByOne lets a request begin when the one before begins to be answered,
// because olareg 0.2.2 looks up repositories without a lock. An upload that has
// begun knows its repository, so its content may come beside others.
func oneByOne(next http.Handler) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/uploads/") && (r.Method == http.MethodPatch || r.Method == http.MethodPut) {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case turn <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		done := sync.OnceFunc(func() { <-turn })
		defer done()
		next.ServeHTTP(beginning{w, done}, r)
	})
}

// beginning tells when the answer begins.
type beginning struct {
	http.ResponseWriter
	begun func()
}

func (b beginning) WriteHeader(status int) {
	b.begun()
	b.ResponseWriter.WriteHeader(status)
}

func (b beginning) Write(content []byte) (int, error) {
	b.begun()
	return b.ResponseWriter.Write(content)
}

// Unwrap is for http.ResponseController.
func (b beginning) Unwrap() http.ResponseWriter { return b.ResponseWriter }
