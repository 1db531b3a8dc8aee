package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/slipway-cd/slipway/gitsource"
)

// Source says what to follow. With Chart set it is a Helm chart of a chart repository, else an OCI artifact.
type Source struct {
	// URL is oci://HOST/PATH; for charts, it is the repository that holds them, and may also be https://HOST/PATH.
	URL   string
	Chart string // its name in the repository
	// Of Tag, Range and Digest exactly one is set. A chart has no Tag; with a Range it may have a Digest besides, which
	// what the Range gives must then have.
	Tag    string
	Range  string // of semantic versions, as in Helm: "~1.2", ">= 1.0.0 < 2"
	Digest string // sha256:...; for a chart of an https repository that of the archive
	Logins Logins
	// Provider asks a cloud for a short-lived token where Logins has nothing.
	Provider Provider
}

// Artifact is one Source with the Store that it is read into.
type Artifact struct {
	store   *Store
	source  Source
	allowed *semver.Constraints // nil without a Range
	digest  gitsource.ObjectID  // empty without a Digest
}

// Open checks a source. It asks no registry.
func (s *Store) Open(source Source) (*Artifact, error) {
	a := &Artifact{store: s, source: source}
	if err := a.checkURL(); err != nil {
		return nil, fmt.Errorf("%s: %w", shown(source.URL), err)
	}
	set := 0
	for _, text := range []string{source.Tag, source.Range, source.Digest} {
		if text != "" {
			set++
		}
	}
	pinned := source.Chart != "" && source.Range != "" && source.Digest != ""
	if source.Chart != "" && source.Tag != "" || set != 1 && (set != 2 || !pinned) {
		return nil, fmt.Errorf("%s: want one of a tag, a range of versions and a digest", shown(source.URL))
	}
	if !source.Provider.serves(a.host()) {
		return nil, fmt.Errorf("%s: %s is no registry of the provider %q", shown(source.URL), a.host(), source.Provider)
	}
	if source.Range != "" {
		allowed, err := semver.NewConstraint(source.Range)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no range of versions (want \"1.2.x\" or \">= 1.2.0\", say)", shown(source.URL), brief(source.Range))
		}
		a.allowed = allowed
	}
	if source.Digest != "" {
		hex, found := strings.CutPrefix(source.Digest, "sha256:")
		id, err := gitsource.ParseObjectID(hex)
		if !found || err != nil || len(id) != 64 {
			return nil, fmt.Errorf("%s: digest %q: want sha256: and 64 hexadecimal characters", shown(source.URL), brief(source.Digest))
		}
		a.digest = id
	}
	return a, nil
}

// shown is a URL without credentials, for messages.
func shown(text string) string {
	at, err := url.Parse(text)
	if err != nil {
		return "the URL of the source"
	}
	at.User = nil
	return brief(at.String())
}

func (a *Artifact) checkURL() error {
	at, err := url.Parse(a.source.URL)
	if err != nil || at.Host == "" {
		return errors.New("not a URL (want oci://HOST/PATH)")
	}
	if at.User != nil {
		return errors.New("holds credentials (put them into a Secret)")
	}
	switch {
	case at.Scheme == "oci":
		_, err := a.repository()
		return err
	case a.source.Chart == "":
		return errors.New("an OCI artifact has a URL oci://HOST/PATH")
	case at.Scheme == "https", at.Scheme == "http" && loopback(at.Hostname()):
		return nil
	case at.Scheme == "http":
		return errors.New("without TLS only repositories on loopback are read (use https)")
	}
	return errors.New("want oci:// or https://")
}

// host is HOST or HOST:PORT of the URL, which was checked.
func (a *Artifact) host() string {
	at, err := url.Parse(a.source.URL)
	if err != nil {
		return ""
	}
	return at.Host
}

func (a *Artifact) isOCI() bool { return strings.HasPrefix(a.source.URL, "oci://") }

// place names what is followed, without a version.
func (a *Artifact) place() string {
	place := strings.TrimSuffix(a.source.URL, "/")
	if a.source.Chart != "" {
		place += "/" + a.source.Chart
	}
	return place
}

// subject names one content of it, for messages.
func (a *Artifact) subject(id gitsource.ObjectID) string {
	return a.place() + "@sha256:" + string(id)
}

// key is the name of one content of it in the store.
func (a *Artifact) key(id gitsource.ObjectID) string {
	sum := sha256.Sum256([]byte(a.place()))
	return hex.EncodeToString(sum[:8]) + "-" + string(id)
}

// Fetch finds out what the source means now and brings it here. The Revision has the tag or version that was chosen as
// its Ref (empty where a digest was asked for) and the digest as its ID.
func (a *Artifact) Fetch(ctx context.Context) (gitsource.Revision, error) {
	if a.isOCI() {
		ref, id, err := a.resolve(ctx)
		if err != nil {
			return gitsource.Revision{}, err
		}
		revision := gitsource.Revision{URL: a.source.URL, Ref: ref, ID: id}
		_, err = a.SnapshotOf(ctx, id)
		return revision, err
	}
	version, id, err := a.resolveIndexed(ctx)
	return gitsource.Revision{URL: a.source.URL, Ref: version, ID: id}, err
}

// SnapshotOf returns the tree that has a digest, which is pulled if it is not here.
func (a *Artifact) SnapshotOf(ctx context.Context, id gitsource.ObjectID) (gitsource.Snapshot, error) {
	if len(id) != 64 {
		return gitsource.Snapshot{}, fmt.Errorf("%s: %q is not a digest", a.place(), id)
	}
	key := a.key(id)
	found := a.store.find(key)
	if found == nil {
		if err := a.store.refusal(key); err != nil {
			return gitsource.Snapshot{}, err
		}
		var err error
		if a.isOCI() {
			found, err = a.pull(ctx, id)
		} else {
			found, err = a.pullIndexed(ctx, id)
		}
		if err != nil {
			a.store.refuse(key, err)
			return gitsource.Snapshot{}, err
		}
	}
	return gitsource.Snapshot{Revision: gitsource.Revision{URL: a.source.URL, ID: id}, Tree: found}, nil
}

// unpack puts an archive into the store as the content that id names. Errors but of content name no subject.
func (a *Artifact) unpack(archive io.Reader, gzipped, chart bool, id gitsource.ObjectID) (*tree, error) {
	staging, err := os.MkdirTemp(a.store.stagingDir(), "unpack-")
	if err != nil {
		return nil, fmt.Errorf("artifacts: %w", err)
	}
	defer func() { _ = os.RemoveAll(staging) }()
	root, err := unpack(archive, gzipped, staging, a.store.limits)
	if err == nil && chart {
		root, err = chartRoot(root)
	}
	var content *ContentError
	if errors.As(err, &content) {
		content.Subject = a.subject(id)
		return nil, content
	}
	if err != nil {
		return nil, err
	}
	return a.store.put(a.key(id), root, staging)
}

// refusal returns what was found to be wrong with content before.
func (s *Store) refusal(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[key]
}

// refuse remembers what never changes.
func (s *Store) refuse(key string, err error) {
	if !errors.As(err, new(*ContentError)) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refused) >= maxRefused {
		clear(s.refused)
	}
	s.refused[key] = err
}
