// Package webhook receives push webhooks of Git hosts over HTTP.
//
// A host gets a good answer only when the push was stored; else it is told to send again. Nothing in a message is
// interpreted before its signature was found right, and a message about another repository than the hook's is refused.
// Replays are told apart by whoever stores pushes; what it needs for that is in the Push.
package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/policy"
)

// Path is where hooks are, each below it by its name.
const Path = "/v1/hooks/"

// ErrKnown is what Accept returns of a push that it has stored before. The host is told that all is well.
var ErrKnown = errors.New("known already")

// Hook is one webhook that a host was given.
type Hook struct {
	Name     string // last part of its URL: letters, digits, "-", "_" and "."
	Kind     forge.Kind
	Secret   policy.Secret // the same that the host has; required
	CloneURL string        // of its one repository, over HTTP or SSH as the host spells it; Generic names none
}

// Options of New.
type Options struct {
	Hooks []Hook
	// Find, if set, looks for a hook beside Hooks, for each message anew; false for none. It is asked by strangers, too: it
	// answers from memory where it can.
	Find func(ctx context.Context, name string) (Hook, bool, error)
	// Accept stores a push. It may get the same one several times, at the same time too, and must store it once: two pushes
	// are the same when Hook, Ref, After and Digest are. An error makes the host send again; ErrKnown does not.
	Accept func(ctx context.Context, push forge.Push) error
	// MaxBody bounds a message, in bytes; default 25 MiB. GitHub sends no more than that, and a limit below would lose
	// just the largest pushes, those that nobody can make smaller.
	MaxBody int64
	// Parallel bounds the messages in memory at one time, and with MaxBody how much memory a stranger can take: all of a
	// message has to be read to check its signature. Default 4; who comes then waits a little and is told to come again.
	Parallel int
	// Within bounds receiving the body and, once more, Accept; default 8 s, because GitHub hangs up after 10.
	Within time.Duration
	Log    logr.Logger
}

// The defaults of Options.
const (
	defaultMaxBody  = 25 << 20
	defaultParallel = 4
	defaultWithin   = 8 * time.Second
)

// Handler answers
//
//   - 202 when a push was stored, 200 when a genuine message has no effect: stored before, a ping, a tag, a deletion;
//   - 401 when the signature is missing or wrong, 404 for a name that is no hook (names are no secrets);
//   - 403 when the message is genuine but about another repository, 400 when it is not what such a host sends;
//   - 405, 413 and, with Retry-After, 503 when there is no room or the push could not be stored.
type Handler struct {
	hooks   map[string]Hook
	find    func(context.Context, string) (Hook, bool, error)
	accept  func(context.Context, forge.Push) error
	maxBody int64
	within  time.Duration
	room    chan struct{}
	log     logr.Logger
}

// New checks the hooks.
func New(o Options) (*Handler, error) {
	if o.Accept == nil {
		return nil, errors.New("webhooks: nobody accepts pushes (set Accept)")
	}
	if o.MaxBody < 0 || o.Parallel < 0 || o.Within < 0 {
		return nil, fmt.Errorf("webhooks: limits %d bytes, %d at once, %s: want positive ones, or 0 for the defaults", o.MaxBody, o.Parallel, o.Within)
	}
	h := &Handler{
		hooks: map[string]Hook{}, find: o.Find, accept: o.Accept, maxBody: cmp.Or(o.MaxBody, defaultMaxBody), within: cmp.Or(o.Within, defaultWithin),
		room: make(chan struct{}, cmp.Or(o.Parallel, defaultParallel)), log: o.Log,
	}
	for _, hook := range o.Hooks {
		if err := hook.check(); err != nil {
			return nil, err
		}
		if _, twice := h.hooks[hook.Name]; twice {
			return nil, fmt.Errorf("webhook %s: there are two of this name", hook.Name)
		}
		h.hooks[hook.Name] = hook
	}
	return h, nil
}

func (h Hook) check() error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if h.Name == "" || strings.Trim(h.Name, ".") == "" || strings.ContainsFunc(h.Name, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("webhook %q: want a name of letters, digits, '-', '_' and '.'", h.Name)
	}
	if _, err := forge.ParseKind(string(h.Kind)); err != nil {
		return fmt.Errorf("webhook %s: %w", h.Name, err)
	}
	if h.Secret.Empty() {
		return fmt.Errorf("webhook %s: no secret (anybody could send pushes; give the one that the host has)", h.Name)
	}
	if _, ok := place(h.CloneURL); !ok && h.Kind != forge.Generic {
		return fmt.Errorf("webhook %s: clone URL: want the one of its repository, https://HOST/OWNER/NAME.git", h.Name)
	}
	return nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, Path)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.answer(w, name, http.StatusMethodNotAllowed, "a webhook is a POST", nil)
		return
	}
	hook, known, err := h.hook(r.Context(), name)
	if err != nil {
		h.later(w, name, "the hook cannot be looked up; send it again", err)
		return
	}
	if !known || !strings.HasPrefix(r.URL.Path, Path) {
		h.answer(w, "", http.StatusNotFound, "no such hook", nil)
		return
	}
	if r.ContentLength > h.maxBody {
		h.tooLarge(w, name)
		return
	}
	wait := time.NewTimer(h.within / 4)
	defer wait.Stop()
	select {
	case h.room <- struct{}{}:
		defer func() { <-h.room }()
	case <-wait.C:
		h.later(w, name, "too many messages at once", nil)
		return
	case <-r.Context().Done():
		return
	}
	h.receive(w, r, hook)
}

func (h *Handler) hook(ctx context.Context, name string) (Hook, bool, error) {
	if hook, known := h.hooks[name]; known || h.find == nil {
		return hook, known, nil
	}
	hook, found, err := h.find(ctx, name)
	if err == nil && found {
		err = hook.check()
	}
	return hook, found, err
}

// receive reads a message, checks it and hands it on.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, hook Hook) {
	// A sender that trickles must not keep the room. Recorders of tests have no deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.within))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		h.tooLarge(w, hook.Name)
		return
	case err != nil:
		h.answer(w, hook.Name, http.StatusBadRequest, "the body did not arrive", err)
		return
	}
	push, err := forge.Parse(hook.Kind, r.Header, body, hook.Secret)
	switch {
	case errors.Is(err, forge.ErrSignature):
		h.answer(w, hook.Name, http.StatusUnauthorized, forge.ErrSignature.Error(), nil)
		return
	case errors.Is(err, forge.ErrUnknownEvent):
		h.answer(w, hook.Name, http.StatusOK, err.Error(), nil)
		return
	case err != nil:
		h.answer(w, hook.Name, http.StatusBadRequest, err.Error(), err)
		return
	}
	if !hook.about(push) {
		h.answer(w, hook.Name, http.StatusForbidden, "this hook is for another repository than "+push.FullName, nil)
		return
	}
	push.Hook = hook.Name
	h.store(w, r, push)
}

// store answers only when Accept has returned.
func (h *Handler) store(w http.ResponseWriter, r *http.Request, push forge.Push) {
	ctx, cancel := context.WithTimeout(r.Context(), h.within)
	defer cancel()
	err := h.accept(ctx, push)
	log := h.log.WithValues("hook", push.Hook, "delivery", push.Delivery, "ref", push.Ref, "commit", push.After)
	switch {
	case errors.Is(err, ErrKnown):
		log.Info("push known already")
		h.answer(w, push.Hook, http.StatusOK, ErrKnown.Error(), nil)
	case err != nil:
		h.later(w, push.Hook, "the push could not be stored; send it again", err)
	default:
		log.Info("push stored")
		h.answer(w, push.Hook, http.StatusAccepted, "stored", nil)
	}
}

// later asks the sender to come again.
func (h *Handler) later(w http.ResponseWriter, name, why string, err error) {
	w.Header().Set("Retry-After", "5")
	h.answer(w, name, http.StatusServiceUnavailable, why, err)
}

// tooLarge refuses a body, most of which was not read: the connection is of no more use.
func (h *Handler) tooLarge(w http.ResponseWriter, name string) {
	w.Header().Set("Connection", "close")
	h.answer(w, name, http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes", h.maxBody), nil)
}

// answer logs refusals. The cause stays here: only the words are for the sender.
func (h *Handler) answer(w http.ResponseWriter, name string, code int, words string, cause error) {
	switch {
	case code >= 500:
		h.log.Error(cause, "webhook not taken", "hook", name, "code", code, "why", words)
	case code >= 400:
		h.log.Info("webhook refused", "hook", name, "code", code, "why", words)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, words+"\n") // who hangs up reads no answer
}

// about reports whether a push is one of the hook's repository.
func (h Hook) about(p forge.Push) bool {
	if h.Kind == forge.Generic {
		return true // the secret belongs to one hook, and tells as much
	}
	want, _ := place(h.CloneURL)
	for _, address := range []string{p.CloneURL, p.SSHURL} {
		if is, ok := place(address); ok && is == want {
			return true
		}
	}
	return false
}

// place reduces a clone URL to what tells repositories apart: transport, host and path. Hosts spell their own with and
// without ".git", and owners of repositories often in another case of the host's name.
func place(address string) (string, bool) {
	if user, rest, scp := strings.Cut(address, "@"); scp && !strings.Contains(address, "://") {
		host, path, found := strings.Cut(rest, ":")
		if !found {
			return "", false
		}
		address = "ssh://" + user + "@" + host + "/" + strings.TrimPrefix(path, "/")
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return "", false
	}
	port := u.Port()
	if port == map[string]string{"http": "80", "https": "443", "ssh": "22"}[u.Scheme] {
		port = ""
	}
	path := strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	ok := path != "" && (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "ssh")
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port + "/" + path, ok
}
