package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-cd/slipway/builder/sandbox"
)

// The user that the demo is played as. Every Linux knows the number, be it in /etc/passwd or not.
const (
	unprivilegedID   = 65534
	unprivilegedName = "nobody"
	demoTimeout      = 30 * time.Minute
)

// stage is where that user works: a copy of the checkout that it can read and a home that it can write. Checkout and caches
// of root are usually closed to others. The path stays the same, so that the next run finds what this one compiled.
type stage struct{ dir string }

func (s stage) source() string { return filepath.Join(s.dir, "src") }
func (s stage) home() string   { return filepath.Join(s.dir, "home") }
func (s stage) temp() string   { return filepath.Join(s.dir, "tmp") }

// demo prepares the test bed and plays the demo as the user.
func demo(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("demo as an unprivileged user: only root can become one (make demo plays it as the user that you are)")
	}
	testbed, err := prepare(ctx)
	if err != nil {
		return err
	}
	return demoAsUser(ctx, testbed)
}

// demoAsUser plays `make demo` as a user without rights, with the Kubernetes that is in the test bed's folder already.
func demoAsUser(ctx context.Context, testbed string) error {
	if !exists("e2e/demo") {
		return errors.New("e2e/demo: there is no demo in this checkout (git checkout e2e/demo)")
	}
	s := stage{dir: "/var/tmp/slipway-" + unprivilegedName}
	unlock, err := s.open()
	if err != nil {
		return fmt.Errorf("stage of user %s: %w", unprivilegedName, err)
	}
	defer unlock()
	if err := s.fill(ctx); err != nil {
		return fmt.Errorf("stage of user %s: %w", unprivilegedName, err)
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := s.handOver(ctx, testbed); err != nil {
		return fmt.Errorf("stage of user %s: %w", unprivilegedName, err)
	}
	return s.play(ctx)
}

// open makes the folders and waits for the run of another checkout that uses them.
func (s stage) open() (unlock func(), err error) {
	// Root owns the folder itself: whatever else runs as that user cannot put a link where root writes.
	if err := os.Mkdir(s.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	info, err := os.Lstat(s.dir)
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || st.Uid != 0 {
		return nil, fmt.Errorf("%s is not a folder of root (remove it)", s.dir)
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		say("waiting for another run that plays the demo in %s", s.dir)
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	for _, dir := range []string{s.home(), s.temp()} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, lock.Close())
		}
		if err := os.Lchown(dir, unprivilegedID, unprivilegedID); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	return func() { _ = lock.Close() }, nil
}

// fill copies the checkout with its dependencies; only the folder for binaries can be written.
func (s stage) fill(ctx context.Context) error {
	if err := os.RemoveAll(s.source()); err != nil {
		return err
	}
	list, err := output(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(list, "\x00") {
		if name == "" || !exists(name) {
			continue
		}
		if err := copyFile(name, filepath.Join(s.source(), name)); err != nil {
			return err
		}
	}
	vendor := command(ctx, "go", "mod", "vendor")
	vendor.Dir = s.source()
	if err := quietly(ctx, "copying the dependencies", vendor); err != nil {
		return err
	}
	if err := filepath.WalkDir(s.source(), readable); err != nil {
		return err
	}
	bin := filepath.Join(s.source(), "bin")
	return errors.Join(os.Mkdir(bin, 0o755), os.Lchown(bin, unprivilegedID, unprivilegedID))
}

// readable gives everybody the right to read, whatever the umask of root was.
func readable(name string, e fs.DirEntry, err error) error {
	if err != nil || e.Type()&fs.ModeSymlink != 0 {
		return err
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	mode := info.Mode().Perm() | 0o444
	if e.IsDir() || mode&0o100 != 0 {
		mode |= 0o111
	}
	return os.Chmod(name, mode)
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// command prepares a process of the user, with an environment of its own: that of root names root's folders.
func (s stage) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := command(ctx, name, args...)
	cmd.Dir = s.source()
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.home(), "TMPDIR=" + s.temp(), "USER=" + unprivilegedName, "LANG=C.UTF-8",
		"GOFLAGS=-buildvcs=false", "GOTOOLCHAIN=local", "GOPROXY=off", "CI=" + os.Getenv("CI"),
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: unprivilegedID, Gid: unprivilegedID, Groups: []uint32{}}
	return cmd
}

// check finds out whether the user can run what it needs.
func (s stage) check(ctx context.Context) error {
	for _, c := range [][]string{{"go", "version"}, {"git", "--version"}, {"make", "--version"}} {
		if out, err := s.command(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			path, _ := exec.LookPath(c[0])
			return fmt.Errorf("%s: user %s cannot run it: %w %s (install it where everybody may read, such as /usr/local)", path, unprivilegedName, err, out)
		}
	}
	return nil
}

// handOver copies the newest role binary, and what isolates steps, into the user's cache. The user writes there, not root.
func (s stage) handOver(ctx context.Context, testbed string) error {
	entries, err := filepath.Glob(filepath.Join(testbed, "roles-*", "roles"))
	if err != nil {
		return err
	}
	newest, name := time.Time{}, ""
	for _, e := range entries {
		info, err := os.Stat(filepath.Dir(e))
		if err == nil && !strings.HasSuffix(filepath.Dir(e), ".part") && info.ModTime().After(newest) {
			newest, name = info.ModTime(), e
		}
	}
	if name == "" {
		return fmt.Errorf("%s: no role binary in it", testbed)
	}
	if err := s.give(ctx, "Kubernetes", name, "testbed"); err != nil {
		return err
	}
	runc, err := builtRunc(ctx)
	if err != nil || runc == "" {
		return err
	}
	return s.give(ctx, "runc", runc, "sandbox")
}

// give copies a program, with its folder's name, into a folder of the user's cache.
func (s stage) give(ctx context.Context, what, program, cache string) error {
	in, err := os.Open(program)
	if err != nil {
		return err
	}
	defer in.Close()
	to := filepath.Join(s.home(), ".cache", "slipway", cache, filepath.Base(filepath.Dir(program)))
	const script = `set -e; [ -d "$1" ] && exit; rm -rf "$1.part"; mkdir -p "$1.part"; cat >"$1.part/$2"; chmod 755 "$1.part/$2"; mv "$1.part" "$1"`
	cmd := s.command(ctx, "sh", "-c", script, "sh", to, filepath.Base(program))
	cmd.Stdin = in
	return quietly(ctx, "handing over "+what, cmd)
}

// builtRunc returns the runc that was built into the cache of whoever runs this; empty if the machine has its own.
func builtRunc(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("runc"); err == nil {
		return "", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "slipway-runc-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cache = filepath.Join(cache, "slipway", "sandbox")
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", err
	}
	box, err := sandbox.New(ctx, sandbox.Options{Cache: cache, State: filepath.Join(dir, "state")})
	if err != nil {
		return "", err
	}
	return box.Runc(), box.Remove()
}

// play runs the demo and shows what it says as it says it.
func (s stage) play(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	start := time.Now()
	cmd := s.command(ctx, "make", "--no-print-directory", "demo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("make demo: %w", err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make demo: %w", err)
	}
	for lines := newLines(out); lines.Scan(); {
		say("  | %s", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("did not end within %s: %w", demoTimeout, ctx.Err())
		}
		return fmt.Errorf("make demo as user %s, after %s: %w", unprivilegedName, since(start), err)
	}
	say("ok    the demo as user %s, %s", unprivilegedName, since(start))
	return nil
}
