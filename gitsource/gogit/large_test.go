package gogit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
)

const (
	largeFiles = 100_000
	largeSize  = 10_486 // bytes each: 1 GiB together, which no compression makes smaller
	largeChild = "SLIPWAY_LARGE_CHILD"
)

// BenchmarkLarge fetches a repository of 100,000 files and 1 GiB from git http-backend, and then a commit that changes one of
// them, with native git and with a Store, each in a process of its own. Run it with -benchtime 1x.
func BenchmarkLarge(b *testing.B) {
	if arguments := os.Getenv(largeChild); arguments != "" {
		largeStore(b, arguments)
		return
	}
	for b.Loop() {
		h := newHost(b)
		importLarge(b, h)
		native, store := filepath.Join(b.TempDir(), "native"), b.TempDir()
		b.Logf("%d files, %d MiB", largeFiles, largeFiles*largeSize>>20)
		report(b, "native git, clone --bare --depth 1", exec.Command("git", "clone", "-q", "--bare", "--depth", "1", h.url(), native))
		report(b, "store, first fetch", child(b, h.url(), store))
		importChange(b, h)
		fetch := exec.Command("git", "fetch", "-q", "--depth", "1", "origin", "main")
		fetch.Dir = native
		report(b, "native git, fetch of a commit with one change", fetch)
		report(b, "store, fetch of a commit with one change", child(b, h.url(), store))
	}
}

func child(b *testing.B, url, dir string) *exec.Cmd {
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkLarge$", "-test.benchtime=1x") //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), largeChild+"="+url+" "+dir)
	return cmd
}

// largeStore is the child: one fetch, and one look at a file.
func largeStore(b *testing.B, arguments string) {
	url, dir, _ := strings.Cut(arguments, " ")
	store, err := gogit.Open(b.Context(), gogit.Options{Dir: dir, URL: url})
	if err != nil {
		b.Fatal(err)
	}
	revision, err := store.Fetch(b.Context(), "refs/heads/main")
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	snapshot, err := store.Snapshot(revision)
	if err != nil {
		b.Fatal(err)
	}
	if entry, err := snapshot.Tree.Entry(largeName(largeFiles - 1)); err != nil || entry.Kind != gitsource.File {
		b.Fatalf("the last file: got %+v, %v", entry, err)
	}
	looked := time.Since(begun)
	runtime.GC()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	runtime.KeepAlive(snapshot)
	fmt.Printf("child: one file looked up in %d ms, %d MiB in use afterwards\n", looked.Milliseconds(), now.HeapAlloc>>20)
}

// report runs a command and logs what it took.
func report(b *testing.B, what string, cmd *exec.Cmd) {
	b.Helper()
	begun := time.Now()
	output, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s: %v\n%s", what, err, output)
	}
	took := time.Since(begun)
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	_, told, _ := strings.Cut(string(output), "child: ")
	told, _, _ = strings.Cut(told, "\n")
	b.Logf("%-48s %6.1f s, CPU %6.1f s, peak memory %5d MiB  %s", what, took.Seconds(),
		(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), usage.Maxrss>>10, told)
}

func largeName(i int) string { return fmt.Sprintf("apps/%03d/%02d/file-%d.yaml", i/1000, i/20%50, i) }

// importLarge makes the first commit.
func importLarge(b *testing.B, h *host) {
	random := rand.NewChaCha8([32]byte{1})
	content := make([]byte, largeSize)
	fastImport(b, h, func(w io.Writer) {
		fmt.Fprintf(w, "commit refs/heads/main\ncommitter A <a@b> 1767225600 +0000\ndata 5\nLarge\n")
		for i := range largeFiles {
			_, _ = random.Read(content)
			fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", largeName(i), len(content), content)
		}
	})
}

func importChange(b *testing.B, h *host) {
	fastImport(b, h, func(w io.Writer) {
		fmt.Fprintf(w, "commit refs/heads/main\ncommitter A <a@b> 1767225700 +0000\ndata 6\nChange\nfrom refs/heads/main^0\nM 100644 inline %s\ndata 8\nchanged\n\n", largeName(5))
	})
}

func fastImport(b *testing.B, h *host, write func(io.Writer)) {
	b.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(b.Context()), "git", "fast-import", "--quiet", "--depth=0")
	cmd.Dir = h.dir
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	buffered := bufio.NewWriterSize(in, 1<<20)
	write(buffered)
	if err := buffered.Flush(); err != nil {
		b.Fatal(err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		b.Fatalf("git fast-import of %s files: %v", strconv.Itoa(largeFiles), err)
	}
}
