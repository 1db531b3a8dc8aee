package oci

import (
	"archive/tar"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// tree lists what is below dir: "name content", "name/ mode", "name -> target".
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			all = append(all, name+"/ "+info.Mode().String())
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			all = append(all, name+" -> "+target)
		default:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all = append(all, name+" "+info.Mode().String()+" "+string(content))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestRootFS(t *testing.T) {
	h := startRegistry(t)
	for _, c := range []struct {
		name   string
		layers [][]file
		want   string
	}{
		{"later layers win", [][]file{
			{{name: "etc/", kind: tar.TypeDir, mode: 0o755}, {name: "etc/a", content: "1"}, {name: "b", content: "1"}},
			{{name: "etc/a", content: "2"}, {name: "./c", content: "2"}, {name: "/d", content: "2"}},
		}, "b -rw-r--r-- 1\nc -rw-r--r-- 2\nd -rw-r--r-- 2\netc/ drwxr-xr-x\netc/a -rw-r--r-- 2"},
		{"whiteouts hide lower layers alone", [][]file{
			{{name: "d/old", content: "1"}, {name: "d/sub/old", content: "1"}, {name: "gone", content: "1"}, {name: "e/x", content: "1"}},
			{{name: "d/sub/new", content: "2"}, {name: "d/.wh..wh..opq"}, {name: ".wh.gone"}, {name: "e/y", content: "2"}, {name: ".wh.e"}, {name: ".wh.never"}},
		}, "d/ drwxr-xr-x\nd/sub/ drwxr-xr-x\nd/sub/new -rw-r--r-- 2\ne/ drwxr-xr-x\ne/y -rw-r--r-- 2"},
		{"kinds change", [][]file{
			{{name: "a/x", content: "1"}, {name: "b", content: "1"}, {name: "c", kind: tar.TypeSymlink, link: "a"}},
			{{name: "a", content: "2"}, {name: "b/", kind: tar.TypeDir, mode: 0o755}, {name: "c/", kind: tar.TypeDir, mode: 0o755}, {name: "c/y", content: "2"}},
		}, "a -rw-r--r-- 2\nb/ drwxr-xr-x\nc/ drwxr-xr-x\nc/y -rw-r--r-- 2"},
		{"links are followed as from inside", [][]file{
			{{name: "run/", kind: tar.TypeDir, mode: 0o755}, {name: "var/run", kind: tar.TypeSymlink, link: "/run"}, {name: "lib", kind: tar.TypeSymlink, link: "../../usr/lib"}},
			{{name: "var/run/pid", content: "1"}, {name: "lib/x", content: "2"}},
		}, "lib -> ../../usr/lib\nrun/ drwxr-xr-x\nrun/pid -rw-r--r-- 1\nusr/ drwxr-xr-x\nusr/lib/ drwxr-xr-x\nusr/lib/x -rw-r--r-- 2\nvar/ drwxr-xr-x\nvar/run -> /run"},
		{"hard links", [][]file{{{name: "a", content: "1"}, {name: "b", kind: tar.TypeLink, link: "/a"}}}, "a -rw-r--r-- 1\nb -rw-r--r-- 1"},
		{"rights that are given up", [][]file{{
			{name: "su", content: "x", mode: 0o6755},
			{name: "tmp/", kind: tar.TypeDir, mode: 0o1777},
			{name: "locked/", kind: tar.TypeDir, mode: 0o2000},
			{name: "secret", mode: 0o200},
			{name: "null", kind: tar.TypeChar},
			{name: "sda", kind: tar.TypeBlock},
			{name: "pipe", kind: tar.TypeFifo},
		}}, "locked/ drwx------\nsecret -rw------- \nsu -rwxr-xr-x x\ntmp/ dtrwxrwxrwx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRegistry(t, Options{})
			var layers [][]byte
			for _, files := range c.layers {
				layers = append(layers, archive(t, files...))
			}
			ref := pushLayers(t, h.host+"/stage:1", layers...)
			dir, digest, err := r.RootFS(t.Context(), h.host+"/stage:1")
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if !strings.HasSuffix(ref, "@"+digest) {
				t.Errorf("digest is %s, want that of %s", digest, ref)
			}
			h.forget()
			again, _, err := r.RootFS(t.Context(), ref)
			if err != nil || again != dir || len(h.take("", "")) != 0 {
				t.Errorf("again: %s, %v, after requests %q", again, err, h.take("", ""))
			}
		})
	}
}

func TestMaliciousLayers(t *testing.T) {
	h := startRegistry(t)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	var many []file
	for i := range 40 {
		many = append(many, file{name: "f" + strconv.Itoa(i)})
	}
	deep := strings.Repeat("d/", 40) + "f"
	for name, c := range map[string]struct {
		want  string // empty: nothing fails, and nothing is written outside
		files []file
	}{
		"name leads out":                 {"leads out of the image", []file{{name: "../../escaped", content: "x"}}},
		"hidden in the middle":           {"leads out of the image", []file{{name: "a/../../escaped", content: "x"}}},
		"hard link leads out":            {"leads out of the image", []file{{name: "a", kind: tar.TypeLink, link: "../../" + outside + "/secret"}}},
		"hard link to a file outside":    {"which is not there", []file{{name: "a", kind: tar.TypeLink, link: outside + "/secret"}}},
		"hard link through a link":       {"which is not there", []file{{name: "l", kind: tar.TypeSymlink, link: outside}, {name: "a", kind: tar.TypeLink, link: "l/secret"}}},
		"hard link to a folder":          {"a folder", []file{{name: "d/x"}, {name: "a", kind: tar.TypeLink, link: "d"}}},
		"write through an absolute link": {"", []file{{name: "l", kind: tar.TypeSymlink, link: outside}, {name: "l/secret", content: "changed"}, {name: "l/new", content: "x"}}},
		"write through a relative link":  {"", []file{{name: "l", kind: tar.TypeSymlink, link: strings.Repeat("../", 30) + outside}, {name: "l/secret", content: "changed"}}},
		"write onto a link":              {"", []file{{name: "l", kind: tar.TypeSymlink, link: outside + "/secret"}, {name: "l", content: "changed"}}},
		"folder mode through a link":     {"", []file{{name: "l", kind: tar.TypeSymlink, link: outside}, {name: "l/", kind: tar.TypeDir, mode: 0o777}}},
		"whiteout through a link":        {"", []file{{name: "l", kind: tar.TypeSymlink, link: outside}, {name: "l/.wh.secret"}, {name: "l/.wh..wh..opq"}}},
		"whiteout of the parent":         {"whiteout of nothing", []file{{name: "a/.wh..."}}},
		"links in a circle":              {"in a circle", []file{{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "a"}, {name: "a/x"}}},
		"file as a folder":               {"not a folder", []file{{name: "a", content: "x"}, {name: "a/b"}}},
		"too many files":                 {"more files than allowed", many},
		"too many folders":               {"more files than allowed", []file{{name: deep}}},
		"too large":                      {"larger than allowed", []file{{name: "big", content: strings.Repeat("\x00", 70_000)}}},
		"too large together":             {"larger than allowed", []file{{name: "a", content: strings.Repeat("a", 40_000)}, {name: "b", content: strings.Repeat("b", 40_000)}}},
		"a kind that nobody knows":       {"unknown kind", []file{{name: "a", kind: 'Z'}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t, Options{Limits: Limits{Unpacked: 64 << 10, Entries: 30}})
			ref := pushLayers(t, h.host+"/bad:1", archive(t, c.files...))
			_, _, err := r.RootFS(t.Context(), ref)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if failure, ok := errors.AsType[*Error](err); ok && failure.Temporary() {
				t.Errorf("%v is temporary", err)
			}
			if got := tree(t, outside); got != "secret -rw-r--r-- secret" {
				t.Errorf("outside is now %s", got)
			}
			if c.want != "" {
				expectNothingLeft(t, r)
			}
		})
	}
}

func expectNothingLeft(t *testing.T, r *Registry) {
	t.Helper()
	for _, dir := range []string{r.scratchDir(), r.rootsDir()} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

func TestWrongContents(t *testing.T) {
	h := startRegistry(t)
	good := archive(t, file{name: "a", content: "1"})
	other, err := v1.NewHash("sha256:" + strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("config lies about a layer", func(t *testing.T) {
		ref := pushImage(t, h.host+"/bad:1", imageOf(t, runtime.GOARCH, rawLayer{Layer: static.NewLayer(zipped(t, good), types.OCILayer), diffID: other}))
		r := newRegistry(t, Options{})
		if _, _, err := r.RootFS(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "the config says sha256:000") {
			t.Errorf("got %v", err)
		}
		expectNothingLeft(t, r)
	})
	t.Run("registry sends other bytes", func(t *testing.T) {
		ref := pushLayers(t, h.host+"/good:1", good)
		changed := zipped(t, archive(t, file{name: "a", content: "2"}))
		h.set(func(w http.ResponseWriter, q *http.Request) bool {
			if q.Method != http.MethodGet || !strings.Contains(q.URL.Path, "/blobs/") {
				return false
			}
			_, _ = w.Write(changed)
			return true
		})
		defer h.set(nil)
		r := newRegistry(t, Options{})
		if _, _, err := r.RootFS(t.Context(), ref); err == nil {
			t.Error("it was unpacked")
		}
		expectNothingLeft(t, r)
	})
	t.Run("for another machine", func(t *testing.T) {
		ref := pushImage(t, h.host+"/bad:2", imageOf(t, "s390x"))
		if _, _, err := newRegistry(t, Options{}).RootFS(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "it is for linux/s390x") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not there", func(t *testing.T) {
		_, _, err := newRegistry(t, Options{}).RootFS(t.Context(), h.host+"/none:1")
		if failure, ok := errors.AsType[*Error](err); !ok || failure.Temporary() || failure.Status() != http.StatusNotFound {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		_, _, err := newRegistry(t, Options{}).RootFS(t.Context(), "127.0.0.1:1/none:1")
		if failure, ok := errors.AsType[*Error](err); !ok || !failure.Temporary() || failure.Registry != "127.0.0.1:1" {
			t.Errorf("got %v", err)
		}
	})
}

// Two Registries stand for two processes with one cache.
func TestManyAskForOneImage(t *testing.T) {
	h := startRegistry(t)
	ref := pushLayers(t, h.host+"/stage:1", archive(t, file{name: "a", content: strings.Repeat("a", 1<<20)}))
	cache := t.TempDir()
	registries := []*Registry{newRegistry(t, Options{Cache: cache}), newRegistry(t, Options{Cache: cache})}
	h.forget()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			dir, _, err := registries[i%2].RootFS(t.Context(), ref)
			if err != nil {
				t.Error(err)
				return
			}
			if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Size() != 1<<20 {
				t.Errorf("it was there before it was whole: %v, %v", info, err)
			}
		})
	}
	all.Wait()
	if got := len(h.take("GET", "/blobs/")); got > 4 {
		t.Errorf("%d blobs were fetched, want config and layer once for each process", got)
	}
	if left, err := os.ReadDir(registries[0].scratchDir()); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnusedImagesAreRemoved(t *testing.T) {
	h := startRegistry(t)
	r := newRegistry(t, Options{Limits: Limits{Kept: 2500, Unused: time.Hour}})
	clock := time.Now()
	r.now = func() time.Time { return clock }
	var dirs []string
	for i := range 4 {
		ref := pushLayers(t, h.host+"/stage:"+strconv.Itoa(i), archive(t, file{name: "a", content: strings.Repeat(strconv.Itoa(i), 1000)}))
		dir, _, err := r.RootFS(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
		clock = clock.Add(25 * time.Minute)
	}
	// At 75 minutes there were 4000 bytes; the first two were used more than an hour, and 50 minutes, before.
	for i, want := range []bool{false, true, true, true} {
		if _, err := os.Stat(dirs[i]); (err == nil) != want {
			t.Errorf("image %d: %v, want it there: %v", i, err, want)
		}
	}
}

func TestPullEndsWithItsContext(t *testing.T) {
	h := startRegistry(t)
	ref := pushLayers(t, h.host+"/stage:1", archive(t, file{name: "a", content: "1"}))
	ctx, cancel := context.WithCancel(t.Context())
	h.set(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			cancel()
			<-q.Context().Done()
			panic(http.ErrAbortHandler)
		}
		return false
	})
	r := newRegistry(t, Options{})
	if _, _, err := r.RootFS(ctx, ref); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	expectNothingLeft(t, r)
}
