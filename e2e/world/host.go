package world

import (
	"net/http"
	"strings"
	"sync"

	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/policy"
)

// personName is the user name under which World.Repo speaks to the Git host.
const personName = "robin"

func personAuth() *gogit.Auth {
	return &gogit.Auth{Username: personName, Password: policy.NewSecret("robin's token")}
}

// hooks are what a test has the Git host do. They leave the person of the World alone.
type hooks struct {
	mu     sync.Mutex
	before func()
	after  func()
	token  string // that pushes need; empty for none

	seeing sync.RWMutex // held while nobody but the person may see where refs are
}

// BeforeNextPush calls f once, while the next push of a program waits: it then loses the race against what f pushes.
func (w *World) BeforeNextPush(f func()) {
	w.hooks.mu.Lock()
	defer w.hooks.mu.Unlock()
	w.hooks.before = f
}

// AfterNextPush calls f once, when the next push of a program is done, and before any program can see it.
func (w *World) AfterNextPush(f func()) {
	w.hooks.mu.Lock()
	defer w.hooks.mu.Unlock()
	w.hooks.after = f
}

// NeedToken lets from now on only those programs push that give a token as their password; all may read.
func (w *World) NeedToken(token string) {
	w.hooks.mu.Lock()
	defer w.hooks.mu.Unlock()
	w.hooks.token = token
}

// take returns the hooks for one push, which are then used up.
func (h *hooks) take() (before, after func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, after = h.before, h.after
	h.before, h.after = nil, nil
	return before, after
}

func (h *hooks) allows(password string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.token == "" || h.token == password
}

func (w *World) serve(out http.ResponseWriter, request *http.Request) {
	user, password, _ := request.BasicAuth()
	pushing := strings.HasSuffix(request.URL.Path, "/git-receive-pack") || request.URL.Query().Get("service") == "git-receive-pack"
	switch {
	case user == personName:
		w.host.ServeHTTP(out, request)
	case pushing && !w.hooks.allows(password):
		out.Header().Set("WWW-Authenticate", `Basic realm="world"`)
		http.Error(out, "a token is required to push", http.StatusUnauthorized)
	case pushing && request.Method == http.MethodPost:
		w.servePush(out, request)
	default:
		w.hooks.seeing.RLock()
		defer w.hooks.seeing.RUnlock()
		w.host.ServeHTTP(out, request)
	}
}

func (w *World) servePush(out http.ResponseWriter, request *http.Request) {
	before, after := w.hooks.take()
	if before != nil {
		before()
	}
	if after == nil {
		w.host.ServeHTTP(out, request)
		return
	}
	w.hooks.seeing.Lock()
	defer w.hooks.seeing.Unlock()
	w.host.ServeHTTP(out, request)
	after()
}
