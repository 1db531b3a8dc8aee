package oci_test

import (
	"archive/tar"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/oci"
)

func TestTagsRangesAndDigests(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	ids := map[string]gitsource.ObjectID{}
	for _, tag := range []string{"v1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1", "20240101", "latest"} {
		ids[tag] = w.push("apps/shop", tag, layer(flux, archive(t, file("deploy.yaml", "tag: "+tag))))
	}
	for _, c := range []struct {
		source oci.Source
		want   string // tag
		ref    string
	}{
		{oci.Source{Tag: "latest"}, "latest", "latest"},
		{oci.Source{Range: ">= 1.0.0"}, "1.10.0", "1.10.0"},
		{oci.Source{Range: "1.0.x"}, "v1.0.0", "v1.0.0"},
		{oci.Source{Range: ">= 1.0.0-0"}, "2.0.0-rc.1", "2.0.0-rc.1"},
		{oci.Source{Digest: "sha256:" + string(ids["1.2.0"])}, "1.2.0", ""},
	} {
		c.source.URL = "apps/shop"
		revision, tree := w.fetched(c.source)
		if revision.ID != ids[c.want] || revision.Ref != c.ref {
			t.Errorf("%+v is %s, want %s@sha256:%s", c.source, revision, c.ref, ids[c.want])
		}
		if got := read(t, tree, "deploy.yaml"); got != "tag: "+c.want {
			t.Errorf("%+v holds %q", c.source, got)
		}
		if parsed, err := gitsource.ParseRevision(revision.String()); err != nil || parsed.ID != revision.ID || parsed.Ref != revision.Ref {
			t.Errorf("%s is read back as %s, %v", revision, parsed, err)
		}
	}
	for text, source := range map[string]oci.Source{
		"no tag is a version in": {URL: "apps/shop", Range: ">= 3"},
		"shop:none: not found":   {URL: "apps/shop", Tag: "none"},
		"no tag is a version":    {URL: "apps/other", Range: "*"},
	} {
		if err := w.fails(source, text); !errors.Is(err, gitsource.ErrNotFound) {
			t.Errorf("%v is not ErrNotFound", err)
		}
	}
	moved := w.push("apps/shop", "latest", layer(flux, archive(t, file("deploy.yaml", "moved"))))
	if revision, _ := w.fetched(oci.Source{URL: "apps/shop", Tag: "latest"}); revision.ID != moved {
		t.Errorf("latest is %s after it moved to %s", revision, moved)
	}
}

func TestSourcesThatCannotBe(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	digest := "sha256:" + strings.Repeat("0", 64)
	for want, source := range map[string]oci.Source{
		"holds credentials":      {URL: "oci://user:hunter2@registry.example/shop", Tag: "1"},
		"want oci://HOST/PATH":   {URL: "registry.example/shop", Tag: "1"},
		"has a URL oci://":       {URL: "https://registry.example/shop", Tag: "1"},
		"without TLS":            {URL: "http://10.0.0.1/charts", Chart: "shop", Range: "*"},
		"want one of a tag":      {URL: "oci://registry.example/shop", Tag: "1", Range: "*"},
		"no range of versions":   {URL: "oci://registry.example/shop", Range: "newest"},
		"want sha256: and 64":    {URL: "oci://registry.example/shop", Digest: "sha256:12"},
		"of a tag, a range":      {URL: "oci://registry.example/charts", Chart: "shop", Tag: "1"},
		"name of a repository":   {URL: "oci://registry.example/UPPER", Digest: digest},
		"one of a tag, a range ": {URL: "oci://registry.example/shop"},
	} {
		if _, err := w.store.Open(source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", source, err, want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v repeats a password", err)
		}
	}
}

// What Git would call the same tree has the same ids, by the word of git itself.
func TestIDsAreThoseOfGit(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	w.push("tree", "1", layer(flux, archive(
		t,
		&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		file("./a.b", "before a/ in plain order, after it in Git's"),
		&tar.Header{Name: "a", Typeflag: tar.TypeDir, Mode: 0o755},
		file("a/x.yaml", "x: 1\n"), file("deep/er/y.yaml", ""),
		&tar.Header{Name: "run.sh", Typeflag: tar.TypeReg, Mode: 0o755, Size: 2, Linkname: "#!"},
		&tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "a/x.yaml"},
		&tar.Header{Name: "dirlink", Typeflag: tar.TypeSymlink, Linkname: "deep/../a"},
	)))
	_, tree := w.fetched(oci.Source{URL: "tree", Tag: "1"})
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "--object-format=sha256")
	for path, content := range map[string]string{"a.b": "before a/ in plain order, after it in Git's", "a/x.yaml": "x: 1\n", "deep/er/y.yaml": "", "run.sh": "#!"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if path == "run.sh" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"link": "a/x.yaml", "dirlink": "deep/../a"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	git("add", "-A")
	root, err := tree.Entry(".")
	if want := git("write-tree"); err != nil || string(root.ID) != want {
		t.Errorf("the root is %s, %v; git says %s", root.ID, err, want)
	}
	blob, err := tree.Entry("a/x.yaml")
	if want := git("rev-parse", ":a/x.yaml"); err != nil || string(blob.ID) != want || blob.Size != 5 {
		t.Errorf("a/x.yaml is %+v, %v; git says %s", blob, err, want)
	}
	if got := read(t, tree, "link"); got != "x: 1\n" {
		t.Errorf("link leads to %q", got)
	}
	if got := read(t, tree, "dirlink/x.yaml"); got != "x: 1\n" {
		t.Errorf("dirlink leads to %q", got)
	}
	w.restart(oci.Limits{})
	_, again := w.fetched(oci.Source{URL: "tree", Tag: "1"})
	if loaded, err := again.Entry("."); err != nil || loaded != root {
		t.Errorf("after a restart the root is %+v, %v, want %+v", loaded, err, root)
	}
	if err := fstest.TestFS(noLinks{again}, "a/x.yaml", "deep/er/y.yaml", "run.sh"); err != nil {
		t.Error(err)
	}
}

// noLinks hides the extra methods, which TestFS holds to the rules of an fs.ReadLinkFS.
type noLinks struct{ fs.FS }

func TestLinksStayInside(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	w.push("links", "1", layer(flux, archive(
		t,
		file("dir/a", "a"),
		&tar.Header{Name: "dir/up", Typeflag: tar.TypeSymlink, Linkname: "../../etc/passwd"},
		&tar.Header{Name: "dir/abs", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		&tar.Header{Name: "dir/self", Typeflag: tar.TypeSymlink, Linkname: "self"},
		&tar.Header{Name: "dir/none", Typeflag: tar.TypeSymlink, Linkname: "nothing"},
	)))
	_, tree := w.fetched(oci.Source{URL: "links", Tag: "1"})
	for name, want := range map[string]string{
		"dir/up": "leaves the tree", "dir/abs": "leaves the tree", "dir/self": "more than 40", "dir/none": "file does not exist", "dir/a/b": "file does not exist",
	} {
		if content, err := tree.ReadFile(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %q, %v; want %q", name, content, err, want)
		}
	}
	if target, err := tree.ReadLink("dir/up"); err != nil || target != "../../etc/passwd" {
		t.Errorf("the link is %q, %v", target, err)
	}
	if entry, err := tree.Entry("dir/missing"); err != nil || entry.Kind != gitsource.Absent {
		t.Errorf("what is not there is %+v, %v", entry, err)
	}
}

func TestArchivesThatAreRefused(t *testing.T) {
	w := newWorld(t, oci.Limits{Archive: 1 << 20, Unpacked: 2 << 20, Entries: 20, Depth: 4})
	many := make([]*tar.Header, 21)
	for i := range many {
		many[i] = file("f"+strconv.Itoa(i), "")
	}
	outside := filepath.Join(w.dir, "..", "escaped")
	for name, c := range map[string]struct {
		want    string
		content []byte
	}{
		"traversal":     {"leaves the archive", archive(t, file("../escaped", "x"))},
		"inner":         {"leaves the archive", archive(t, file("a/../../escaped", "x"))},
		"absolute":      {"absolute path", archive(t, file("/etc/passwd", "x"))},
		"backslash":     {"backslash", archive(t, file(`..\escaped`, "x"))},
		"hardlink":      {"hard link", archive(t, file("a", "x"), &tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "a"})},
		"device":        {"a device", archive(t, &tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3})},
		"fifo":          {"a pipe", archive(t, &tar.Header{Name: "pipe", Typeflag: tar.TypeFifo})},
		"through-link":  {"is no folder", archive(t, &tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, file("d/x", "x"))},
		"twice":         {"in the archive twice", archive(t, file("a", "x"), file("./a", "y"))},
		"file-and-dir":  {"in the archive twice", archive(t, file("a", "x"), &tar.Header{Name: "a/", Typeflag: tar.TypeDir})},
		"empty-link":    {"usable target", archive(t, &tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("x", 5000)})},
		"empty":         {"archive is empty", archive(t)},
		"not-gzip":      {"not gzipped", []byte("plain")},
		"not-tar":       {"not a tar", archive(t, file("a", "x"))[:40]},
		"many":          {"more than 20 entries", archive(t, many...)},
		"deep":          {"folders deep", archive(t, file("a/b/c/d/e", "x"))},
		"bomb":          {"more than 2097152 bytes unpacked", archive(t, file("zeros", strings.Repeat("\x00", 3<<20)))},
		"bomb-trailing": {"more than 2097152 bytes unpacked", archive(t, file("a", "x"), file("zeros", strings.Repeat("\x00", 2<<20)))},
	} {
		t.Run(name, func(t *testing.T) {
			w.push("bad/"+name, "1", layer(flux, c.content))
			err := w.fails(oci.Source{URL: "bad/" + name, Tag: "1"}, c.want)
			if !errors.As(err, new(*oci.ContentError)) {
				t.Errorf("%v is no ContentError", err)
			}
		})
	}
	if _, err := os.Stat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written outside of the store: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.dir, "new")); len(left) > 0 {
		t.Errorf("%d staging folders are left", len(left))
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	w := newWorld(t, oci.Limits{Archive: 4096})
	good := archive(t, file("a", "x"))
	w.push("none", "1", layer("application/vnd.example.other", good))
	w.fails(oci.Source{URL: "none", Tag: "1"}, `["application/vnd.example.other"]`)
	w.push("two", "1", layer(flux, good), layer(flux, archive(t, file("b", "y"))))
	w.fails(oci.Source{URL: "two", Tag: "1"}, "several layers")
	w.push("large", "1", layer("application/vnd.oci.image.layer.v1.tar", make([]byte, 5000)))
	if err := w.fails(oci.Source{URL: "large", Tag: "1"}, "layer of 5000 bytes"); !errors.Is(err, oci.ErrLimit) {
		t.Errorf("%v does not name the limit", err)
	}
	tag, err := name.NewTag(w.host + "/index:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, empty.Index, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	w.fails(oci.Source{URL: "index", Tag: "1"}, "is an index")
	// Of several kinds of layers the one with the files is taken.
	w.push("mixed", "1", layer("application/vnd.example.other", []byte("note")), layer("application/vnd.oci.image.layer.v1.tar+gzip", good))
	if _, tree := w.fetched(oci.Source{URL: "mixed", Tag: "1"}); read(t, tree, "a") != "x" {
		t.Error("mixed was not read")
	}
}

// With the registry gone, what was pulled is still there, also for the next process.
func TestRegistryGoneKeepsWhatIsHere(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	id := w.push("shop", "1", layer(flux, archive(t, file("a", "kept"))))
	w.fetched(oci.Source{URL: "shop", Tag: "1"})
	w.restart(oci.Limits{})
	gone := w.open(oci.Source{URL: "oci://127.0.0.1:1/shop", Tag: "1"})
	if _, err := gone.Fetch(t.Context()); !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("a registry that does not answer is %v", err)
	}
	if _, err := gone.SnapshotOf(t.Context(), id); !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("content of another repository was handed out by its digest alone: %v", err)
	}
	remove(t, w, id)
	snapshot, err := w.open(oci.Source{URL: "shop", Tag: "1"}).SnapshotOf(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, snapshot.Tree, "a"); got != "kept" {
		t.Errorf("a holds %q", got)
	}
}

// remove deletes a manifest from the registry, which refuses by default; then its tag moves on.
func remove(t *testing.T, w *world, id gitsource.ObjectID) {
	t.Helper()
	digest, err := name.NewDigest(w.host + "/shop@sha256:" + string(id))
	if err != nil {
		t.Fatal(err)
	}
	if remote.Delete(digest, remote.WithContext(t.Context())) != nil {
		w.push("shop", "1", layer(flux, archive(t, file("a", "moved on"))))
	}
}

// What the disk has changed is noticed, never read, and pulled again.
func TestDamageIsNoticed(t *testing.T) {
	w := newWorld(t, oci.Limits{})
	w.push("shop", "1", layer(flux, archive(t, file("a", "good"))))
	_, tree := w.fetched(oci.Source{URL: "shop", Tag: "1"})
	entry, err := tree.Entry("a")
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(w.dir, "blobs", string(entry.ID[:2]), string(entry.ID))
	if err := os.WriteFile(blob, []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if content, err := tree.ReadFile("a"); err == nil {
		t.Errorf("changed content was read: %q", content)
	}
	if _, again := w.fetched(oci.Source{URL: "shop", Tag: "1"}); read(t, again, "a") != "good" {
		t.Error("it was not pulled again")
	}
}

func TestOldArtifactsAreRemovedUnlessPinned(t *testing.T) {
	w := newWorld(t, oci.Limits{Kept: 2500})
	ids := map[string]gitsource.ObjectID{}
	for i := range 4 {
		tag := strconv.Itoa(i)
		ids[tag] = w.push("shop", tag, layer(flux, archive(t, file("a", tag+strings.Repeat("x", 1000)))))
		w.fetched(oci.Source{URL: "shop", Tag: tag})
		if i == 0 {
			if err := w.open(oci.Source{URL: "shop", Tag: tag}).Pin("shop", ids[tag]); err != nil {
				t.Fatal(err)
			}
		}
	}
	here := func() (files int) {
		names, err := filepath.Glob(filepath.Join(w.dir, "blobs", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if got := here(); got != 2 {
		t.Errorf("%d artifacts are kept, want the pinned and the newest", got)
	}
	artifact := w.open(oci.Source{URL: "shop", Digest: "sha256:" + string(ids["0"])})
	if err := artifact.Unpin("shop"); err != nil {
		t.Fatal(err)
	}
	if err := artifact.Unpin("shop"); err != nil {
		t.Errorf("a pin that is not there: %v", err)
	}
	if err := artifact.Pin("shop", gitsource.ObjectID(strings.Repeat("0", 64))); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("what is not here was pinned: %v", err)
	}
}

// A registry that says when to come back is left alone until then; no other is.
func TestRetryAfter(t *testing.T) {
	asked := 0
	busy := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		asked++
		clock := time.Now().Add(-time.Hour) // of the registry
		rw.Header().Set("Date", clock.UTC().Format(http.TimeFormat))
		rw.Header().Set("Retry-After", clock.Add(2*time.Minute).UTC().Format(http.TimeFormat))
		rw.WriteHeader(http.StatusTooManyRequests)
	})
	w := newWorld(t, oci.Limits{})
	for range 3 {
		err := w.fails(oci.Source{URL: "oci://" + busy + "/shop", Tag: "1"}, "asks to wait")
		var wait *oci.BusyError
		if !errors.As(err, &wait) || wait.RetryAfter().Seconds() < 100 || !errors.Is(err, gitsource.ErrUnreachable) {
			t.Errorf("%v says to wait %v", err, wait)
		}
	}
	if asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
	w.push("shop", "1", layer(flux, archive(t, file("a", "x"))))
	w.fetched(oci.Source{URL: "shop", Tag: "1"})
}
