package oci_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/oci"
	"github.com/slipway-cd/slipway/policy"
)

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// chartRepository is a chart repository over HTTP, behind a password.
type chartRepository struct {
	mu       sync.Mutex
	index    string
	archives map[string][]byte
	asked    map[string]int
	answers  map[int]int // by status
}

func (c *chartRepository) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked[r.URL.Path]++
	if username, password, _ := r.BasicAuth(); username != "team" || password != "pass-word" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/charts/index.yaml" {
		tag := fmt.Sprintf("%q", sumOf([]byte(c.index)))
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			c.answers[http.StatusNotModified]++
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte(c.index))
		return
	}
	content, found := c.archives[r.URL.Path]
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = w.Write(content)
}

func (c *chartRepository) set(index string, archives map[string][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.archives = index, archives
}

func newChartRepository(t *testing.T) (*chartRepository, string) {
	t.Helper()
	c := &chartRepository{asked: map[string]int{}, answers: map[int]int{}}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return c, server.URL + "/charts"
}

func teamLogin(host string) oci.Logins {
	return oci.LoginOf(host, oci.Login{Username: "team", Password: policy.NewSecret("pass-word")})
}

func TestChartsFromHTTP(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	repository, url := newChartRepository(t)
	one, two := chartArchive(t, "shop", "1.0.0"), chartArchive(t, "shop", "1.1.0")
	repository.set(fmt.Sprintf(`apiVersion: v1
entries:
  other: [{version: 9.0.0, urls: [x.tgz]}]
  shop:
    - {name: shop, version: 1.0.0, urls: [shop-1.0.0.tgz], digest: %s}
    - {name: shop, version: 1.1.0, urls: [%s/shop-1.1.0.tgz]}
    - {name: shop, version: 2.0.0-rc.1, urls: [shop-2.tgz]}
`, sumOf(one), url), map[string][]byte{"/charts/shop-1.0.0.tgz": one, "/charts/shop-1.1.0.tgz": two})
	source := oci.Source{URL: url, Chart: "shop", Range: "1.x", Logins: teamLogin(strings.TrimPrefix(strings.TrimSuffix(url, "/charts"), "http://"))}

	anonymous := source
	anonymous.Logins = oci.Logins{}
	w.fails(anonymous, "401")

	for range 3 {
		revision, tree := w.fetched(source)
		if revision.Ref != "1.1.0" || revision.ID != sumOf(two) {
			t.Errorf("the range gives %s", revision)
		}
		if got := read(t, tree, "Chart.yaml"); !strings.Contains(got, "version: 1.1.0") {
			t.Errorf("the tree does not begin in the chart: %q", got)
		}
	}
	if repository.asked["/charts/shop-1.1.0.tgz"] != 1 || repository.answers[http.StatusNotModified] != 2 {
		t.Errorf("not asked sparingly: %v, %v", repository.asked, repository.answers)
	}
	source.Range = "1.0.0"
	if revision, _ := w.fetched(source); revision.ID != sumOf(one) {
		t.Errorf("1.0.0 is %s", revision)
	}
	source.Digest = "sha256:" + string(sumOf(two))
	w.fails(source, "is asked for")
	source.Range, source.Digest = "", "sha256:"+string(sumOf(one))
	if revision, _ := w.fetched(source); revision.Ref != "1.0.0" {
		t.Errorf("by its digest it is %s", revision)
	}
	source.Range, source.Digest = ">= 3", ""
	if err := w.fails(source, "no version in"); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("%v is not ErrNotFound", err)
	}
}

// The same version with other content is another revision; the old content can still be read, also by a new process.
func TestChartPublishedAgain(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	repository, url := newChartRepository(t)
	host := strings.TrimPrefix(strings.TrimSuffix(url, "/charts"), "http://")
	publish := func(content []byte, digest gitsource.ObjectID) {
		repository.set(fmt.Sprintf("entries: {shop: [{version: 1.0.0, urls: [shop.tgz], digest: %q}]}", digest), map[string][]byte{"/charts/shop.tgz": content})
	}
	source := oci.Source{URL: url, Chart: "shop", Range: "*", Logins: teamLogin(host)}
	first, second := chartArchive(t, "shop", "1.0.0"), chartArchive(t, "shop", "1.0.0+again")
	publish(first, sumOf(first))
	w.fetched(source)
	publish(second, sumOf(second))
	if revision, _ := w.fetched(source); revision.ID != sumOf(second) {
		t.Errorf("after it was published again it is %s", revision)
	}
	w.restart(oci.Limits{})
	if _, err := w.open(source).SnapshotOf(t.Context(), sumOf(first)); err != nil {
		t.Errorf("the former content: %v", err)
	}
	publish(first, sumOf(second))
	w.restart(oci.Limits{})
	w.dir = t.TempDir()
	w.restart(oci.Limits{})
	w.fails(source, "and the index says sha256:"+string(sumOf(second)))
	w.dir = t.TempDir()
	w.restart(oci.Limits{})
	if _, err := w.open(source).SnapshotOf(t.Context(), gitsource.ObjectID(strings.Repeat("1", 64))); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("what was never published is %v", err)
	}
}

// An index may send us anywhere, but not our password.
func TestPasswordStaysWithItsHost(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	content := chartArchive(t, "shop", "1.0.0")
	var sent []string
	elsewhere := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		_, _ = rw.Write(content)
	})
	repository, url := newChartRepository(t)
	repository.set("entries: {shop: [{version: 1.0.0, urls: ['http://"+elsewhere+"/shop.tgz']}]}", nil)
	w.fetched(oci.Source{URL: url, Chart: "shop", Range: "*", Logins: teamLogin(strings.TrimPrefix(strings.TrimSuffix(url, "/charts"), "http://"))})
	if len(sent) != 1 || sent[0] != "" {
		t.Errorf("the other host was sent %q", sent)
	}
}

func TestIndexesThatAreRefused(t *testing.T) {
	w := newWorld(t, oci.Limits{Index: 4096})
	repository, url := newChartRepository(t)
	source := oci.Source{URL: url, Chart: "shop", Range: "*", Logins: teamLogin(strings.TrimPrefix(strings.TrimSuffix(url, "/charts"), "http://"))}
	for want, index := range map[string]string{
		"more than 4096 bytes":       "entries: {} #" + strings.Repeat("x", 5000),
		"not the index":              "<html>",
		"no such chart":              "entries: {other: []}",
		"no URL":                     "entries: {shop: [{version: 1.0.0}]}",
		"name that registry":         "entries: {shop: [{version: 1.0.0, urls: ['oci://registry.example/shop:1']}]}",
		"want https":                 "entries: {shop: [{version: 1.0.0, urls: ['http://registry.example/shop.tgz']}]}",
		"holds credentials":          "entries: {shop: [{version: 1.0.0, urls: ['https://a:b@registry.example/shop.tgz']}]}",
		"digest: object id":          "entries: {shop: [{version: 1.0.0, urls: [x.tgz], digest: abc}]}",
		"404 Not Found":              "entries: {shop: [{version: 1.0.0, urls: [x.tgz]}]}",
		"one folder that holds ever": "entries: {shop: [{version: 1.0.0, urls: [flat.tgz]}]}",
	} {
		repository.set(index, map[string][]byte{"/charts/flat.tgz": archive(t, file("Chart.yaml", "name: shop"), file("values.yaml", ""))})
		w.fails(source, want)
	}
}

func TestChartsFromRegistries(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	for _, version := range []string{"1.0.0", "1.2.0", "1.2.0+build.5"} {
		w.push("charts/shop", strings.ReplaceAll(version, "+", "_"), layer(chart, chartArchive(t, "shop", version)),
			layer("application/vnd.cncf.helm.chart.provenance.v1.prov", []byte("signature")))
	}
	revision, tree := w.fetched(oci.Source{URL: "charts", Chart: "shop", Range: "1.x"})
	if !strings.HasPrefix(revision.Ref, "1.2.0") {
		t.Errorf("the range gives %s", revision)
	}
	if got := read(t, tree, "Chart.yaml"); !strings.Contains(got, "name: shop") {
		t.Errorf("the tree does not begin in the chart: %q", got)
	}
	other := oci.Source{URL: "charts", Chart: "shop", Range: "1.0.0", Digest: "sha256:" + string(revision.ID)}
	w.fails(other, "is asked for")
	w.push("charts/flux", "1.0.0", layer(flux, archive(t, file("a", "x"))))
	w.fails(oci.Source{URL: "charts", Chart: "flux", Range: "*"}, "not a Helm chart")
	w.push("charts/two", "1.0.0", layer(chart, archive(t, file("a/x", "x"), file("b/x", "x"))))
	w.fails(oci.Source{URL: "charts", Chart: "two", Range: "*"}, "one folder")
}

func TestLogins(t *testing.T) {
	logins, err := oci.ParseLogins([]byte(`{"auths": {
		"https://index.docker.io/v1/": {"username": "hub", "password": "h"},
		"ghcr.io": {"auth": "YWxsOmE="},
		"ghcr.io/team": {"auth": "dGVhbTp0"},
		"registry.example:5000": {"username": "port", "password": "p"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]string{
		"docker.io/library/nginx": "hub", "index.docker.io/library/nginx": "hub", "ghcr.io/other/x": "all", "ghcr.io/team/x": "team",
		"ghcr.io/teammate/x": "all", "registry.example:5000/x": "port", "registry.example/x": "",
	} {
		if got := logins.For(repository).Username; got != want {
			t.Errorf("%s is logged in to as %q, want %q", repository, got, want)
		}
	}
	for _, bad := range []string{"SECRETSTUFF", `{"credsStore": "desktop"}`, `{"auths": {"x": {"auth": "U0VDUkVUU1RVRkY="}}}`} {
		if _, err := oci.ParseLogins([]byte(bad)); err == nil || bytes.Contains([]byte(err.Error()), []byte("SECRETSTUFF")) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
