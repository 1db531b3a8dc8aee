// Package bare is a Git host for bare repositories over smart HTTP, by git
// http-backend, so that a laptop needs no other one.
//
// It promises push events and that history is never rewritten: updates must be
// fast-forwards. It has no pull requests, reviews or web pages; requests are branches.
package bare

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
)

// Access of a token.
type Access uint8

// The kinds of access. Read is the zero value.
const (
	Read Access = iota
	Write
)

// Token lets its bearer in.
type Token struct {
	Secret policy.Secret
	Access Access
}

// Push is one ref that a push has moved. An empty id stands for "not there".
type Push struct {
	Repo     string // name without .git
	Ref      string
	Old, New gitsource.ObjectID
}

// Options of a Host.
type Options struct {
	Root string // folder of the repositories
	// OnPush is called after refs have moved, once for each and by name within one push; nil for
	// nobody. Pushes at the same time are told of in any order. An event is a hint: none may come
	// when the pusher goes away before the answer.
	OnPush func(Push)
	// MaxPush bounds the pack of one push, in bytes; default 256 MiB.
	MaxPush int64
	// Tokens are given as the password of basic authentication, with any user name. None: everybody may do everything.
	Tokens []Token
	// CreateOnPush makes a repository when somebody who may write pushes to a name that is not there.
	CreateOnPush bool
}

// Host serves the repositories below a folder at /NAME.git.
type Host struct {
	root, git, backend string
	onPush             func(Push)
	tokens             []Token
	maxPush            int64
	createOnPush       bool

	mu    sync.Mutex
	locks map[string]*sync.Mutex // of repositories being pushed to
}

// defaultMaxPush is far above what an environment repo needs.
const defaultMaxPush = 256 << 20

// New finds git and its http-backend.
func New(o Options) (*Host, error) {
	for _, token := range o.Tokens {
		if token.Secret.Empty() {
			return nil, errors.New("git host: a token is empty; it would let in everybody who gives no password")
		}
	}
	if o.MaxPush < 0 {
		return nil, fmt.Errorf("git host: largest push of %d bytes: want a positive number, or 0 for %d", o.MaxPush, defaultMaxPush)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, errors.New("git host: git is not installed (Debian: apt install git)")
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("git host: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("git host: %w", err)
	}
	h := &Host{root: root, git: git, onPush: o.OnPush, tokens: o.Tokens, maxPush: cmp.Or(o.MaxPush, defaultMaxPush), createOnPush: o.CreateOnPush, locks: map[string]*sync.Mutex{}}
	out, err := h.run(context.Background(), root, "--exec-path")
	if err != nil {
		return nil, err
	}
	h.backend = filepath.Join(strings.TrimSpace(out), "git-http-backend")
	if _, err := os.Stat(h.backend); err != nil {
		return nil, fmt.Errorf("git host: %s is missing; it comes with git (Debian: apt install git)", h.backend)
	}
	return h, nil
}

// environment keeps the user's own Git configuration out.
func (h *Host) environment() []string {
	env := []string{
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + h.root, "LC_ALL=C",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
	return append(env, "PATH="+os.Getenv("PATH"))
}

func (h *Host) run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.git, args...)
	cmd.Dir, cmd.Env = dir, h.environment()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func checkName(name string) error {
	if !names.MatchString(name) || len(name) > 100 || strings.HasSuffix(name, ".git") || strings.Contains(name, "..") {
		return fmt.Errorf("repository name %q: want letters, digits and . _ - without .git at the end", name)
	}
	return nil
}

// Create makes an empty repository whose branch is main. One that is there stays as it is.
func (h *Host) Create(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	dir := filepath.Join(h.root, name+".git")
	// Git completes a half-made repository, and keeps what it finds in a whole one.
	if _, err := h.run(ctx, h.root, "init", "-q", "--bare", "-b", "main", dir); err != nil {
		return err
	}
	for key, value := range map[string]string{
		"http.receivepack":              "true",
		"uploadpack.allowAnySHA1InWant": "true", // a revert reads commits that no branch names any more
		"receive.denyNonFastForwards":   "true",
		"receive.denyDeletes":           "false", // requests are branches, removed once they are merged
		"receive.fsckObjects":           "true",
		"gc.auto":                       "0", // a pushed repository is not repacked under its readers' feet
		"receive.maxInputSize":          strconv.FormatInt(h.maxPush, 10),
	} {
		if _, err := h.run(ctx, dir, "config", key, value); err != nil {
			return err
		}
	}
	return nil
}

// Names lists the repositories, without .git.
func (h *Host) Names() ([]string, error) {
	entries, err := os.ReadDir(h.root)
	if err != nil {
		return nil, fmt.Errorf("git host: %w", err)
	}
	var found []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), ".git"); ok && entry.IsDir() {
			found = append(found, name)
		}
	}
	return found, nil
}

// paths that smart HTTP uses; all else, above all the dumb protocol, is not served.
var paths = regexp.MustCompile(`^/([^/]+)\.git/(info/refs|git-upload-pack|git-receive-pack)$`)

// ServeHTTP serves the smart HTTP protocol.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	match := paths.FindStringSubmatch(r.URL.Path)
	if match == nil || checkName(match[1]) != nil {
		http.NotFound(w, r)
		return
	}
	name, dir := match[1], filepath.Join(h.root, match[1]+".git")
	service := strings.TrimPrefix(match[2], "info/refs")
	if service == "" {
		service = r.URL.Query().Get("service")
	}
	if service != "git-upload-pack" && service != "git-receive-pack" {
		http.Error(w, "only the smart protocol is served", http.StatusForbidden)
		return
	}
	if !h.allowed(r, service == "git-receive-pack") {
		w.Header().Set("WWW-Authenticate", `Basic realm="slipway"`)
		http.Error(w, "a token with the right to do this is required, as the password", http.StatusUnauthorized)
		return
	}
	if !h.there(r.Context(), name, service) {
		http.NotFound(w, r)
		return
	}
	backend := &cgi.Handler{Path: h.backend, Root: "/", Dir: dir, Env: append(h.environment(),
		"GIT_PROJECT_ROOT="+h.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=git")}
	r = forBackend(r, service)
	if r.Method != http.MethodPost || service != "git-receive-pack" {
		backend.ServeHTTP(w, r)
		return
	}
	h.push(name, dir, func() { backend.ServeHTTP(w, r) })
}

// there reports whether the repository can be served, and makes it where a push may do that.
func (h *Host) there(ctx context.Context, name, service string) bool {
	if _, err := os.Stat(filepath.Join(h.root, name+".git", "HEAD")); err == nil {
		return true
	}
	if !h.createOnPush || service != "git-receive-pack" {
		return false
	}
	lock := h.lock(name)
	lock.Lock()
	defer lock.Unlock()
	return h.Create(ctx, name) == nil
}

// lock is held by whoever changes the repository.
func (h *Host) lock(name string) *sync.Mutex {
	h.mu.Lock()
	defer h.mu.Unlock()
	lock, found := h.locks[name]
	if !found {
		lock = &sync.Mutex{}
		h.locks[name] = lock
	}
	return lock
}

// forBackend returns the request as the backend may see it: without the token, and
// with the one service that the token was checked for.
func forBackend(r *http.Request, service string) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	if r.URL.RawQuery != "" {
		r.URL.RawQuery = "service=" + service
	}
	// Git sends what is larger than its buffer in chunks. Package cgi refuses these, because
	// CGI has no word for a body of unknown length; http-backend reads it to its end.
	r.TransferEncoding = nil
	return r
}

// push serves one push at a time for each repository, so that what it moved is known.
func (h *Host) push(name, dir string, serve func()) {
	lock := h.lock(name)
	var moved []Push
	func() {
		lock.Lock()
		defer lock.Unlock()
		before, errBefore := h.refs(dir)
		serve()
		after, errAfter := h.refs(dir)
		if errBefore != nil || errAfter != nil {
			return // a lost event costs time, a wrong one trust
		}
		moved = compare(name, before, after)
	}()
	if h.onPush == nil {
		return
	}
	for _, push := range moved {
		h.onPush(push)
	}
}

func compare(name string, before, after map[string]gitsource.ObjectID) []Push {
	var moved []Push
	for ref, id := range after {
		if before[ref] != id {
			moved = append(moved, Push{Repo: name, Ref: ref, Old: before[ref], New: id})
		}
	}
	for ref, id := range before {
		if _, there := after[ref]; !there {
			moved = append(moved, Push{Repo: name, Ref: ref, Old: id})
		}
	}
	slices.SortFunc(moved, func(a, b Push) int { return cmp.Compare(a.Ref, b.Ref) })
	return moved
}

func (h *Host) refs(dir string) (map[string]gitsource.ObjectID, error) {
	out, err := h.run(context.Background(), dir, "for-each-ref", "--format=%(refname) %(objectname)")
	if err != nil {
		return nil, err
	}
	refs := map[string]gitsource.ObjectID{}
	for line := range strings.Lines(out) {
		if ref, id, found := strings.Cut(strings.TrimSpace(line), " "); found {
			refs[ref] = gitsource.ObjectID(id)
		}
	}
	return refs, nil
}

// allowed compares with every token, in a time that does not depend on which one fits.
func (h *Host) allowed(r *http.Request, write bool) bool {
	if len(h.tokens) == 0 {
		return true
	}
	_, password, _ := r.BasicAuth()
	given := sha256.Sum256([]byte(password))
	allowed := false
	for _, token := range h.tokens {
		want := sha256.Sum256([]byte(token.Secret.Reveal()))
		if subtle.ConstantTimeCompare(given[:], want[:]) == 1 && (!write || token.Access == Write) {
			allowed = true
		}
	}
	return allowed
}
