package githubapp_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge/githubapp"
	"github.com/slipway-cd/slipway/policy"
)

// github judges what an app shows for itself as GitHub does: the signature first, then the claims.
type github struct {
	*testing.T
	server *httptest.Server
	key    *rsa.PublicKey
	now    atomic.Int64 // seconds
	asked  atomic.Int32
	status atomic.Int32 // of the answer; 0 for what is due
}

func newGitHub(t *testing.T) (*github, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	g := &github{T: t, key: &key.PublicKey}
	g.now.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Unix())
	g.server = httptest.NewServer(g)
	t.Cleanup(g.server.Close)
	return g, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func (g *github) clock() time.Time { return time.Unix(g.now.Load(), 0) }

func (g *github) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := g.asked.Add(1)
	if status := g.status.Load(); status != 0 {
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(int(status))
		return
	}
	if err := g.judge(r); err != nil {
		g.Logf("refused: %v", err)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/api/v3/app/installations/42/access_tokens" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprintf(w, `{"token":"token-%d","expires_at":%q}`, n, g.clock().Add(time.Hour).UTC().Format(time.RFC3339))
}

func (g *github) judge(r *http.Request) error {
	word, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(word, ".")
	if !bearer || len(parts) != 3 {
		return errors.New("no JWT")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(g.key, crypto.SHA256, sum[:], signature); err != nil {
		return err
	}
	var header struct{ Alg, Typ string }
	var claims struct {
		Issued  int64  `json:"iat"`
		Expires int64  `json:"exp"`
		Issuer  string `json:"iss"`
	}
	for i, into := range []any{&header, &claims} {
		content, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(content, into); err != nil {
			return err
		}
	}
	now := g.now.Load()
	if header.Alg != "RS256" || header.Typ != "JWT" || claims.Issuer != "7" || claims.Issued > now || claims.Expires <= now || claims.Expires-claims.Issued > 600 {
		return fmt.Errorf("%+v %+v at %d", header, claims, now)
	}
	return nil
}

func (g *github) installation(key string, with ...func(*githubapp.Options)) *githubapp.Installation {
	g.Helper()
	options := githubapp.Options{App: "7", Installation: "42", PrivateKey: policy.NewSecret(key), API: g.server.URL + "/api/v3/", Now: g.clock}
	for _, f := range with {
		f(&options)
	}
	i, err := githubapp.New(options)
	if err != nil {
		g.Fatal(err)
	}
	return i
}

func TestTokensAreKeptUntilShortlyBeforeTheyExpire(t *testing.T) {
	g, key := newGitHub(t)
	i := g.installation(key)
	token := func(want string) {
		t.Helper()
		if got, err := i.Token(context.Background()); err != nil || got.Reveal() != want {
			t.Errorf("got %q, %v, want %q", got.Reveal(), err, want)
		}
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { token("token-1") })
	}
	all.Wait()
	g.now.Add(54 * 60)
	token("token-1")
	if got := g.asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
	g.now.Add(60)
	token("token-2")
	// GitHub is down: the old one does until it expires, and no longer.
	g.now.Add(56 * 60)
	g.status.Store(http.StatusBadGateway)
	token("token-2")
	g.now.Add(5 * 60)
	if got, err := i.Token(context.Background()); !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("got %q, %v", got.Reveal(), err)
	}
	g.status.Store(0)
	token(fmt.Sprintf("token-%d", g.asked.Load()+1))
}

func TestRefusals(t *testing.T) {
	g, key := newGitHub(t)
	_, stranger := newGitHub(t)
	refused := func(name string, i *githubapp.Installation, want string) {
		t.Helper()
		_, err := i.Token(context.Background())
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, gitsource.ErrUnreachable) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	refused("another key", g.installation(stranger), "does not accept its key")
	refused("another app", g.installation(key, func(o *githubapp.Options) { o.App = "8" }), "does not accept its key")
	refused("another installation", g.installation(key, func(o *githubapp.Options) { o.Installation = "43" }), "no such installation")
	g.status.Store(http.StatusTemporaryRedirect)
	if _, err := g.installation(key).Token(context.Background()); !errors.Is(err, gitsource.ErrUnreachable) || !strings.Contains(err.Error(), "307") {
		t.Errorf("a redirect: %v", err)
	}
	for name, change := range map[string]func(*githubapp.Options){
		"no app":             func(o *githubapp.Options) { o.App = "" },
		"no installation":    func(o *githubapp.Options) { o.Installation = "" },
		"an odd one":         func(o *githubapp.Options) { o.Installation = "../42" },
		"no key":             func(o *githubapp.Options) { o.PrivateKey = policy.NewSecret("hidden") },
		"plain http":         func(o *githubapp.Options) { o.API = "http://api.example" },
		"a login in the API": func(o *githubapp.Options) { o.API = "https://u:hidden@api.example" },
	} {
		options := githubapp.Options{App: "7", Installation: "42", PrivateKey: policy.NewSecret(key), Now: g.clock}
		change(&options)
		if _, err := githubapp.New(options); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
