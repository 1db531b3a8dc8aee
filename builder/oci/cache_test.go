package oci

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCachesOfTrustLevels(t *testing.T) {
	r := newRegistry(t, Options{})
	seen := map[string]string{}
	for _, trust := range []string{"shop/main", "shop/pull-requests", "../main", "shop/main/"} {
		mounts, err := r.Caches(trust)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mounts {
			if other := seen[m.Source]; other != "" || !m.Writable {
				t.Errorf("%s of %s: shared with %s, or read-only", m.Source, trust, other)
			}
			seen[m.Source] = trust
			if inside, err := filepath.Rel(r.cachesDir(), m.Source); err != nil || !filepath.IsLocal(inside) {
				t.Errorf("%s lies outside of the cache", m.Source)
			}
		}
		if again, err := r.Caches(trust); err != nil || again[0] != mounts[0] {
			t.Errorf("%s is elsewhere the second time: %v, %v", trust, again, err)
		}
	}
	if _, err := r.Caches(""); err == nil {
		t.Error("caches without a trust level")
	}
}

func TestTrim(t *testing.T) {
	r := newRegistry(t, Options{})
	clock := time.Now()
	r.now = func() time.Time { return clock }
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	var dirs []string
	for _, trust := range []string{"old", "new"} {
		mounts, err := r.Caches(trust)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(mounts[0].Source, "example.com", "greet@v1.0.0")
		write(t, filepath.Join(dir, "greet.go"), string(make([]byte, 1000)))
		if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o555); err != nil { // as go makes them
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
		clock = clock.Add(time.Minute)
		if _, err := r.Caches(trust); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := r.Trim(t.Context(), 2000); err != nil || left != 2000 {
		t.Errorf("at the limit: %d, %v", left, err)
	}
	if left, err := r.Trim(t.Context(), 1500); err != nil || left != 1000 {
		t.Errorf("over the limit: %d, %v", left, err)
	}
	if _, err := os.Stat(dirs[0]); !os.IsNotExist(err) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := os.Stat(dirs[1]); err != nil {
		t.Errorf("the new one: %v", err)
	}
	if got := tree(t, outside); got != "secret -rw-r--r-- secret" {
		t.Errorf("outside is now %s", got)
	}
}

// recorder is a RoundTripper that only notes where requests would go.
type recorder struct{ scheme string }

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	r.scheme = q.URL.Scheme
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: q}, nil
}

func TestNothingInTheClear(t *testing.T) {
	for host, want := range map[string]string{
		"registry.example": "https", "10.0.0.1:5000": "https", "192.168.1.1": "https", "localhost.example": "https",
		"127.0.0.1:5000": "http", "localhost:5000": "http", "[::1]:5000": "http", "allowed.example:5000": "http",
	} {
		seen := &recorder{}
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&encrypted{next: seen, insecure: []string{"allowed.example:5000"}}).RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if seen.scheme != want {
			t.Errorf("%s is spoken to by %s, want %s", host, seen.scheme, want)
		}
	}
}
