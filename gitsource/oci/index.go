package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/Masterminds/semver/v3"
	"go.yaml.in/yaml/v3"

	"github.com/slipway-cd/slipway/gitsource"
)

// chartIndex is the index.yaml of a chart repository as it was last read.
type chartIndex struct {
	mu      sync.Mutex
	etag    string
	changed string // Last-Modified
	sum     [sha256.Size]byte
	charts  map[string][]indexed
	// found are digests that the index does not say, by URL of the archive, for as long as the index stays as it is.
	found map[string]gitsource.ObjectID
}

// indexed is one version of a chart.
type indexed struct {
	Version string   `yaml:"version"`
	URLs    []string `yaml:"urls"`
	Digest  string   `yaml:"digest"`
}

// resolveIndexed chooses a version of the index and brings it here.
func (a *Artifact) resolveIndexed(ctx context.Context) (string, gitsource.ObjectID, error) {
	index, err := a.readIndex(ctx)
	if err != nil {
		return "", "", err
	}
	defer index.mu.Unlock()
	versions := index.charts[a.source.Chart]
	if len(versions) == 0 {
		return "", "", fmt.Errorf("%s: the index has no such chart: %w", a.place(), gitsource.ErrNotFound)
	}
	chosen, err := a.choose(versions)
	if err != nil {
		return "", "", err
	}
	id, err := a.bring(ctx, index, chosen)
	if err != nil {
		return "", "", err
	}
	if a.digest != "" && a.digest != id {
		return "", "", a.otherDigest(chosen.Version, id)
	}
	return chosen.Version, id, nil
}

// choose returns the highest version in the range, or the one that has the digest.
func (a *Artifact) choose(versions []indexed) (indexed, error) {
	best := -1
	var highest *semver.Version
	for i, one := range versions {
		if a.allowed == nil {
			if id, _ := one.id(); id == a.digest {
				return one, nil
			}
			continue
		}
		version, err := semver.NewVersion(one.Version)
		if err != nil || !a.allowed.Check(version) || highest != nil && !highest.LessThan(version) {
			continue
		}
		best, highest = i, version
	}
	if best < 0 {
		return indexed{}, fmt.Errorf("%s: the index has no version in %q: %w", a.place(), a.source.Range+a.source.Digest, gitsource.ErrNotFound)
	}
	return versions[best], nil
}

// id is the digest that the index gives; empty if it gives none.
func (i indexed) id() (gitsource.ObjectID, error) {
	if i.Digest == "" {
		return "", nil
	}
	id, err := gitsource.ParseObjectID(strings.TrimPrefix(i.Digest, "sha256:"))
	if err == nil && len(id) != 64 {
		err = errors.New("want 64 hexadecimal characters")
	}
	return id, err
}

// bring makes sure that the archive of one version is here, and returns its digest.
func (a *Artifact) bring(ctx context.Context, index *chartIndex, one indexed) (gitsource.ObjectID, error) {
	id, err := one.id()
	if err != nil {
		return "", &ContentError{Subject: a.place(), Path: "index.yaml", Cause: fmt.Errorf("version %s: digest: %w", brief(one.Version), err)}
	}
	at, err := a.archiveURL(one)
	if err != nil {
		return "", err
	}
	if id == "" {
		id = index.found[at]
	}
	if id != "" {
		if a.store.find(a.key(id)) != nil {
			return id, nil
		}
		if err := a.store.refusal(a.key(id)); err != nil {
			return "", err
		}
	}
	got, err := a.download(ctx, at, id)
	if err != nil {
		a.store.refuse(a.key(got), err)
		return "", err
	}
	index.found[at] = got
	return got, nil
}

// pullIndexed finds the archive that has a digest in the index: a version that is followed no longer, perhaps.
func (a *Artifact) pullIndexed(ctx context.Context, id gitsource.ObjectID) (*tree, error) {
	index, err := a.readIndex(ctx)
	if err != nil {
		return nil, err
	}
	defer index.mu.Unlock()
	for _, one := range index.charts[a.source.Chart] {
		at, err := a.archiveURL(one)
		if err != nil {
			continue
		}
		if listed, _ := one.id(); listed == id || index.found[at] == id {
			if _, err := a.download(ctx, at, id); err != nil {
				return nil, err
			}
			if made := a.store.find(a.key(id)); made != nil {
				return made, nil
			}
		}
	}
	return nil, fmt.Errorf("%s: the index does not have it: %w", a.subject(id), gitsource.ErrNotFound)
}

// download unpacks an archive, which must have a digest if one is given, and returns the one that it has.
func (a *Artifact) download(ctx context.Context, at string, want gitsource.ObjectID) (gitsource.ObjectID, error) {
	response, err := a.get(ctx, at, nil)
	if err != nil {
		return want, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return want, a.status(at, response.StatusCode)
	}
	// The digest is known only at the end, and it names the place in the store; so what was sent is held until then. A
	// chart is small: the largest in use have some hundred KB.
	content, err := io.ReadAll(response.Body)
	if err != nil {
		if errors.Is(err, ErrLimit) {
			return want, fmt.Errorf("%s: %w", at, err)
		}
		return want, unreachable{fmt.Errorf("%s: %w", at, err)}
	}
	sum := sha256.Sum256(content)
	id := gitsource.ObjectID(hex.EncodeToString(sum[:]))
	if want != "" && id != want {
		return want, fmt.Errorf("%s: the archive has the digest sha256:%s, and the index says sha256:%s", at, id, want)
	}
	if _, err = a.unpack(bytes.NewReader(content), true, true, id); err != nil && !errors.As(err, new(*ContentError)) {
		err = fmt.Errorf("%s: %w", at, err)
	}
	return id, err
}

// archiveURL returns where the archive of a version is.
func (a *Artifact) archiveURL(one indexed) (string, error) {
	wrong := func(format string, args ...any) (string, error) {
		return "", &ContentError{Subject: a.place(), Path: "index.yaml", Cause: fmt.Errorf("version %s: "+format, append([]any{brief(one.Version)}, args...)...)}
	}
	if len(one.URLs) == 0 {
		return wrong("no URL")
	}
	base, err := url.Parse(strings.TrimSuffix(a.source.URL, "/") + "/")
	if err != nil {
		return wrong("%w", err)
	}
	at, err := base.Parse(one.URLs[0])
	if err != nil {
		return wrong("URL %q cannot be read", brief(one.URLs[0]))
	}
	switch {
	case at.User != nil:
		return wrong("the URL holds credentials")
	case at.Scheme == "oci":
		return wrong("the archive is at %s (name that registry as the repository)", brief(at.String()))
	case at.Scheme != "https" && (at.Scheme != "http" || !loopback(at.Hostname())):
		return wrong("URL %q: want https", brief(at.String()))
	}
	return at.String(), nil
}

// readIndex reads the index anew if it has changed, and returns it locked.
func (a *Artifact) readIndex(ctx context.Context) (*chartIndex, error) {
	at := strings.TrimSuffix(a.source.URL, "/") + "/index.yaml"
	login, err := a.Login(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	who := sha256.Sum256([]byte(at + "\x00" + login.Username + "\x00" + login.Password.Reveal()))
	a.store.mu.Lock()
	index, known := a.store.indexes[string(who[:])]
	if !known {
		if len(a.store.indexes) >= maxIndexes {
			clear(a.store.indexes)
		}
		index = &chartIndex{}
		a.store.indexes[string(who[:])] = index
	}
	a.store.mu.Unlock()
	index.mu.Lock()
	if err := a.refresh(ctx, at, index); err != nil {
		index.mu.Unlock()
		return nil, err
	}
	return index, nil
}

func (a *Artifact) refresh(ctx context.Context, at string, index *chartIndex) error {
	headers := http.Header{}
	if index.charts != nil && index.etag != "" {
		headers.Set("If-None-Match", index.etag)
	}
	if index.charts != nil && index.changed != "" {
		headers.Set("If-Modified-Since", index.changed)
	}
	response, err := a.get(ctx, at, headers)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusNotModified:
		return nil
	case http.StatusOK:
	default:
		return a.status(at, response.StatusCode)
	}
	content, err := io.ReadAll(response.Body)
	if errors.Is(err, ErrLimit) {
		return fmt.Errorf("%s: %w", at, err)
	}
	if err != nil {
		return unreachable{fmt.Errorf("%s: %w", at, err)}
	}
	sum := sha256.Sum256(content)
	if index.charts == nil || sum != index.sum {
		var parsed struct {
			Entries map[string][]indexed `yaml:"entries"`
		}
		if err := yaml.Unmarshal(content, &parsed); err != nil || parsed.Entries == nil {
			return &ContentError{Subject: at, Cause: errors.New("not the index of a chart repository (want entries)")}
		}
		index.charts, index.sum, index.found = parsed.Entries, sum, map[string]gitsource.ObjectID{}
	}
	index.etag, index.changed = response.Header.Get("ETag"), response.Header.Get("Last-Modified")
	return nil
}

// isOwn reports whether a URL is of the repository's own host. An index may send us anywhere, but not our password.
func (a *Artifact) isOwn(at string) bool {
	own, errOwn := url.Parse(a.source.URL)
	other, errOther := url.Parse(at)
	return errOwn == nil && errOther == nil && own.Host == other.Host && own.Scheme == other.Scheme
}

func (a *Artifact) get(ctx context.Context, at string, headers http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	for key := range headers {
		request.Header.Set(key, headers.Get(key))
	}
	request.Header.Set("User-Agent", "slipway")
	if a.isOwn(at) {
		login, err := a.Login(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		if login != (Login{}) {
			request.SetBasicAuth(login.Username, login.Password.Reveal())
		}
	}
	response, err := (&http.Client{Transport: a.store.client, CheckRedirect: notInTheClear}).Do(request)
	if err != nil {
		return nil, unreachable{fmt.Errorf("%s: %w", at, err)}
	}
	return response, nil
}

// notInTheClear follows a redirect only to TLS or loopback.
func notInTheClear(request *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("more than 5 redirects")
	}
	if request.URL.Scheme != "https" && !loopback(request.URL.Hostname()) {
		return errors.New("redirected to a host without TLS")
	}
	return nil
}

func (a *Artifact) status(at string, code int) error {
	err := fmt.Errorf("%s: the repository answers %d %s", at, code, http.StatusText(code))
	switch {
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %w", err, gitsource.ErrNotFound)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w (check the Secret that spec.secretRef names, if any)", err)
	case code >= 500, code == http.StatusTooManyRequests:
		return unreachable{err}
	}
	return err
}
