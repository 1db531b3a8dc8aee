package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/oci"
)

const (
	flux  = "application/vnd.cncf.flux.content.v1.tar+gzip"
	chart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// world is a real registry and a store.
type world struct {
	*testing.T
	host  string
	dir   string
	store *oci.Store
}

func newWorld(t *testing.T, limits oci.Limits) *world {
	t.Helper()
	w := &world{T: t, host: newRegistry(t, nil), dir: t.TempDir()}
	w.restart(limits)
	return w
}

// newRegistry serves an olareg, behind what outer makes of it, and returns its host.
func newRegistry(t *testing.T, outer func(http.Handler) http.Handler) string {
	t.Helper()
	backend := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreDir, RootDir: t.TempDir(), GC: config.ConfigGC{Frequency: -1}}})
	var turn sync.Mutex // it races with itself while a repository is new
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn.Lock()
		defer turn.Unlock()
		backend.ServeHTTP(w, r)
	}))
	if outer != nil {
		handler = outer(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.Close()
		_ = backend.Close() // it fails for repositories that were only asked for
	})
	return strings.TrimPrefix(server.URL, "http://")
}

// restart opens the store anew, as a new process does.
func (w *world) restart(limits oci.Limits) {
	w.Helper()
	store, err := oci.New(oci.Options{Dir: w.dir, Limits: limits})
	if err != nil {
		w.Fatal(err)
	}
	w.store = store
}

// push pushes layers as one artifact and returns its digest.
func (w *world) push(repository, tag string, layers ...v1.Layer) gitsource.ObjectID {
	w.Helper()
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.cncf.flux.config.v1+json")
	for _, layer := range layers {
		var err error
		if image, err = mutate.Append(image, mutate.Addendum{Layer: layer}); err != nil {
			w.Fatal(err)
		}
	}
	at, err := name.NewTag(w.host + "/" + repository + ":" + tag)
	if err != nil {
		w.Fatal(err)
	}
	if err := remote.Write(at, image, remote.WithContext(w.Context())); err != nil {
		w.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		w.Fatal(err)
	}
	return gitsource.ObjectID(digest.Hex)
}

func (w *world) open(source oci.Source) *oci.Artifact {
	w.Helper()
	if !strings.Contains(source.URL, "://") {
		source.URL = "oci://" + w.host + "/" + source.URL
	}
	artifact, err := w.store.Open(source)
	if err != nil {
		w.Fatal(err)
	}
	return artifact
}

// fetched follows a source once.
func (w *world) fetched(source oci.Source) (gitsource.Revision, gitsource.Tree) {
	w.Helper()
	artifact := w.open(source)
	revision, err := artifact.Fetch(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	snapshot, err := artifact.SnapshotOf(w.Context(), revision.ID)
	if err != nil {
		w.Fatal(err)
	}
	return revision, snapshot.Tree
}

func (w *world) fails(source oci.Source, want string) error {
	w.Helper()
	revision, err := w.open(source).Fetch(w.Context())
	if err == nil || !strings.Contains(err.Error(), want) {
		w.Fatalf("%s gave %s, %v; want an error with %q", source.URL, revision, err, want)
	}
	return err
}

func layer(mediaType string, content []byte) v1.Layer {
	return static.NewLayer(content, types.MediaType(mediaType))
}

// file is a regular file of an archive.
func file(name, content string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), Linkname: content}
}

// archive makes a gzipped tar; the content of a file stands in its Linkname.
func archive(t *testing.T, headers ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	writer := tar.NewWriter(zipped)
	for _, given := range headers {
		header := *given
		content := ""
		if header.Typeflag == tar.TypeReg {
			content, header.Linkname = header.Linkname, ""
		}
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// chartArchive is what `helm package` makes, as far as a registry cares.
func chartArchive(t *testing.T, name, version string) []byte {
	t.Helper()
	return archive(t,
		file(name+"/Chart.yaml", "apiVersion: v2\nname: "+name+"\nversion: "+version+"\n"),
		file(name+"/templates/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+"}\n"))
}

func sumOf(content []byte) gitsource.ObjectID {
	sum := sha256.Sum256(content)
	return gitsource.ObjectID(hex.EncodeToString(sum[:]))
}

func read(t *testing.T, tree gitsource.Tree, name string) string {
	t.Helper()
	content, err := tree.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
