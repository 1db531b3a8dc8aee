package gitea

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options of Start.
type Options struct {
	Dir string    // of its data; made if it is not there, else empty
	Log io.Writer // lines about a long build; nil for nowhere
}

// Host is a running Gitea on a loopback address. It ends with this process, however that ends.
type Host struct {
	URL   string // "http://127.0.0.1:PORT"
	Admin User

	program program
	dir     string
	port    string
	process *process // nil when it does not run

	mu    sync.Mutex
	users map[string]User // by name
}

// process is one run of a program.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

const (
	startWithin = 60 * time.Second
	stopWithin  = 20 * time.Second
	adminName   = "gitadmin"
)

// Start builds Gitea if need be, sets it up in a folder and waits until it answers.
func Start(ctx context.Context, o Options) (*Host, error) {
	program, err := build(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("gitea: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "home"), 0o700); err != nil {
		return nil, fmt.Errorf("gitea: %w", err)
	}
	h := &Host{program: program, dir: dir, users: map[string]User{}}
	if h.port, err = freePort(); err != nil {
		return nil, err
	}
	h.URL = "http://127.0.0.1:" + h.port
	if err := h.configure(); err != nil {
		return nil, err
	}
	if _, err := h.command(ctx, "migrate"); err != nil {
		return nil, err
	}
	if err := h.admin(ctx); err != nil {
		return nil, err
	}
	return h, h.Restart(ctx)
}

// freePort asks the kernel. Somebody may take the port before Gitea does; then it fails to start and says so.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	if err != nil {
		return "", fmt.Errorf("gitea: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

func (h *Host) ini() string { return filepath.Join(h.dir, "app.ini") }

// configure writes the settings: only what the tests need is on, and nothing looks out of this machine. Webhooks go to
// servers with certificates of their own making.
func (h *Host) configure() error {
	top := "APP_NAME = Slipway test bed\nRUN_MODE = prod\nWORK_PATH = " + h.dir + "\n"
	if os.Geteuid() == 0 {
		top += "I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true\n"
	}
	text := top + `[server]
PROTOCOL = http
HTTP_ADDR = 127.0.0.1
HTTP_PORT = ` + h.port + `
ROOT_URL = ` + h.URL + `/
STATIC_ROOT_PATH = ` + h.program.static + `
DISABLE_SSH = true
OFFLINE_MODE = true
LFS_START_SERVER = false
[database]
DB_TYPE = sqlite3
PATH = ` + filepath.Join(h.dir, "gitea.db") + `
SQLITE_JOURNAL_MODE = WAL
[repository]
ROOT = ` + filepath.Join(h.dir, "repositories") + `
DEFAULT_BRANCH = main
[security]
INSTALL_LOCK = true
SECRET_KEY = ` + rand.Text() + `
PASSWORD_HASH_ALGO = pbkdf2$1000$8
[webhook]
ALLOWED_HOST_LIST = loopback
SKIP_TLS_VERIFY = true
[service]
DISABLE_REGISTRATION = true
[log]
MODE = console
LEVEL = Info
[oauth2]
ENABLED = false
[actions]
ENABLED = false
[packages]
ENABLED = false
[cron]
ENABLED = false
[mailer]
ENABLED = false
[picture]
DISABLE_GRAVATAR = true
`
	if _, err := os.Stat(h.ini()); err == nil {
		return fmt.Errorf("gitea: %s holds another host (give an empty folder)", h.dir)
	}
	if err := os.WriteFile(h.ini(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("gitea: %w", err)
	}
	return nil
}

// prepare makes a command of the program. It inherits nothing: Git reads the user's settings from HOME.
func (h *Host) prepare(args ...string) *exec.Cmd {
	cmd := exec.Command(h.program.path, append(args, "--config", h.ini())...) //nolint:noctx // ended by Stop and Kill
	cmd.Dir = h.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(h.dir, "home"), "GIT_CONFIG_NOSYSTEM=1", "USER=" + os.Getenv("USER")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start runs cmd on a thread of its own that lives as long: Pdeathsig follows the thread, not the process.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
		close(p.done)
	}()
	return p, <-started
}

// command runs one command to its end and returns what it printed.
func (h *Host) command(ctx context.Context, args ...string) (string, error) {
	cmd := h.prepare(args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	p, err := start(cmd)
	if err != nil {
		return "", fmt.Errorf("gitea %s: %w", args[0], err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		return "", fmt.Errorf("gitea %s: %w", args[0], ctx.Err())
	}
	if !cmd.ProcessState.Success() {
		return "", fmt.Errorf("gitea %s: %s\n%s%s", args[0], cmd.ProcessState, lastLines(out.Bytes()), lastLines(complaints.Bytes()))
	}
	return out.String(), nil
}

// kill ends the process and those it started.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // gone already is as good
	<-p.done
}

// admin makes the first user, who makes the others over the API.
func (h *Host) admin(ctx context.Context) error {
	h.Admin = User{Name: adminName, Email: adminName + "@example.com", Password: rand.Text()}
	if _, err := h.command(ctx, "admin", "user", "create", "--admin", "--must-change-password=false",
		"--username", h.Admin.Name, "--password", h.Admin.Password, "--email", h.Admin.Email); err != nil {
		return err
	}
	out, err := h.command(ctx, "admin", "user", "generate-access-token", "--username", h.Admin.Name, "--token-name", "testbed", "--scopes", "all", "--raw")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	h.Admin.Token = strings.TrimSpace(lines[len(lines)-1])
	return nil
}

// Restart starts the host again, on the same port and data, and waits until it answers. It stops one that runs.
func (h *Host) Restart(ctx context.Context) error {
	if err := h.Stop(); err != nil {
		return err
	}
	log, err := os.OpenFile(h.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("gitea: %w", err)
	}
	defer log.Close()
	cmd := h.prepare("web")
	cmd.Stdout, cmd.Stderr = log, log
	if h.process, err = start(cmd); err != nil {
		return fmt.Errorf("gitea: %w", err)
	}
	if err := h.answers(ctx); err != nil {
		content, _ := os.ReadFile(h.LogFile())
		h.Kill()
		return fmt.Errorf("gitea: %w\n%s", err, lastLines(content))
	}
	return nil
}

// answers waits for the host.
func (h *Host) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+"/api/healthz", nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-h.process.done:
			return fmt.Errorf("it ended: %s", h.process.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// LogFile is where the host writes what it does.
func (h *Host) LogFile() string { return filepath.Join(h.dir, "gitea.log") }

// Stop asks the host to end, and insists when it does not.
func (h *Host) Stop() error {
	if h.process == nil {
		return nil
	}
	p := h.process
	h.process = nil
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already is as good
	select {
	case <-p.done:
		return nil
	case <-time.After(stopWithin):
		p.kill()
		return fmt.Errorf("gitea: did not end within %s of being asked to", stopWithin)
	}
}

// Kill ends the host at once, as a crash would.
func (h *Host) Kill() {
	if h.process != nil {
		h.process.kill()
		h.process = nil
	}
}

// lastLines are enough of a log to see what went wrong.
func lastLines(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n") + "\n"
}
