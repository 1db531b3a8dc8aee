package console

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"strings"
)

// caller is the key of the context value that names who calls.
type caller struct{}

// callerOf returns the name of the token that a request came with.
func callerOf(ctx context.Context) string {
	name, _ := ctx.Value(caller{}).(string)
	return name
}

// localCaller is who calls where there are no tokens.
const localCaller = "local"

// allowed lets only those through who hold a token of the scope.
func (s *Server) allowed(scope Scope, next http.HandlerFunc) http.HandlerFunc {
	if scope == NoScope {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		name := localCaller
		if len(s.tokens) == 0 {
			if err := fromHere(r); err != nil {
				answer(w, http.StatusForbidden, Answer{Error: err.Error()})
				return
			}
		} else {
			scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			token, found := find(s.tokens, strings.TrimSpace(secret))
			switch {
			case !strings.EqualFold(scheme, "Bearer"):
				s.refuse(w, http.StatusUnauthorized, "a token is needed (send Authorization: Bearer TOKEN; the slipway command reads SLIPWAY_TOKEN)")
				return
			case !found:
				s.refuse(w, http.StatusUnauthorized, "the token is not known to this server (it may have been withdrawn; ask for another one)")
				return
			case token.Scope < scope:
				s.refuse(w, http.StatusForbidden, "the token of "+token.Name+" may "+token.Scope.String()+", and this needs "+scope.String()+" (ask for another one)")
				return
			}
			name = token.Name
		}
		next(w, r.WithContext(context.WithValue(r.Context(), caller{}, name)))
	}
}

func (s *Server) refuse(w http.ResponseWriter, status int, reason string) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="slipway"`)
	}
	answer(w, status, Answer{Error: reason})
}

var errNotFromHere = errors.New("this server has no tokens, so only this machine may ask, by a loopback address " +
	"(make one with 'slipway-server token', and name the file of tokens in the server's configuration)")

// fromHere reports whether a request came over a loopback address, under a name
// that stands for one, and not through a proxy. The name keeps web pages out that
// let their own name point to this machine.
func fromHere(r *http.Request) error {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	named := host == "localhost" || ip != nil && ip.IsLoopback()
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	tcp, _ := local.(*net.TCPAddr)
	proxied := r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-For") != ""
	if !named || tcp == nil || !tcp.IP.IsLoopback() || proxied {
		return errNotFromHere
	}
	return nil
}

// headerRequestID names a request in the log and in its answer.
const headerRequestID = "X-Request-Id"

// identified gives each request an id, unless it brings a harmless one.
func identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(headerRequestID)
		if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool {
			return c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
		}) {
			id = rand.Text()
			r.Header.Set(headerRequestID, id)
		}
		w.Header().Set(headerRequestID, id)
		next.ServeHTTP(w, r)
	})
}

// explained answers what no route takes with JSON, as everything else.
func explained(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		found := &discarded{header: w.Header()}
		handler.ServeHTTP(found, r)
		switch found.status {
		case http.StatusMethodNotAllowed:
			answer(w, found.status, Answer{Error: "method " + brief(r.Method) + ": want " + w.Header().Get("Allow")})
		case http.StatusNotFound:
			answer(w, found.status, Answer{Error: "path " + brief(r.URL.Path) + ": there is nothing here (GET /openapi.json lists what there is)"})
		default:
			answer(w, max(found.status, http.StatusBadRequest), Answer{Error: "request: not understood"})
		}
	})
}

// discarded keeps the status and the header of an answer alone.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(status int)      { d.status = status }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }
