// Package sandbox runs commands apart from the machine that they run on, by runc.
//
// A command sees a read-only root file system, its workspace, the folders that are
// mounted for it, and nothing else: neither files nor processes nor the environment
// of the machine, and no network unless it is asked for. It is root inside and an
// ordinary, unprivileged user outside, without capabilities and unable to gain any.
// What the machine cannot give is told by Tier, never left out silently.
//
// It does not protect from a kernel that can be broken into; who needs that gives
// each job a machine of its own.
//
// A command that asks for the network reaches others by HTTP and through TLS only: it
// has a network of its own with a proxy as the way out, which HTTP_PROXY and its like
// name. So the ports of this machine, its abstract sockets and the credentials that a
// cloud serves to it stay out of reach. That needs root; in TierRootless the command
// shares the machine's network, loopback included, and the tier says so.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
)

// Options of a Sandbox.
type Options struct {
	// Runc is the program; default the one on the PATH, else one that is built into Cache.
	Runc string
	// Cache is where programs are kept that have to be built.
	Cache string
	// State is the folder of what runs, of which one process at a time may use one; what an earlier one left there
	// is ended. As root it has to lie where any user may pass; default below the temporary folder.
	State string
	// AllowUnisolated runs commands as plain processes where nothing better works. They can then
	// read and do what this process can.
	AllowUnisolated bool
	Log             logr.Logger
}

// Tier is how far a Sandbox keeps commands apart.
type Tier struct {
	Name     string // TierRoot, TierRootless or TierNone
	Isolated bool
	Missing  []string // in words, for people
}

// The tiers, from the strongest.
const (
	TierRoot     = "runc-root"     // with all limits; the command is a user that owns nothing else
	TierRootless = "runc-rootless" // without limits of memory and CPU; outside, the command is the user of this process
	TierNone     = "none"
)

// Mount is a folder of the machine that a command sees.
type Mount struct {
	Source, Target string // Target is absolute
	Writable       bool
}

// Spec is one command.
type Spec struct {
	ID        string // of this command alone: letters, digits and hyphens
	RootFS    string // folder; empty for the machine's own tools
	Workspace string // folder of the machine, writable at /workspace; empty for none
	Mounts    []Mount
	Command   []string
	Env       []string      // complete: nothing is inherited
	Dir       string        // inside; default /workspace, or /
	Network   bool          // default: nothing but a loopback of its own
	Memory    int64         // bytes; default 4 GiB
	CPUs      float64       // default all
	PIDs      int64         // default 4096
	Timeout   time.Duration // 0 for none
	// Output gets each line without its end, from one goroutine at a time. Lines over 64 KiB come in parts.
	Output func(stream string, line []byte)
}

// Result is how a command ended.
type Result struct {
	ExitCode  int // 128 + the signal if it was killed
	OOMKilled bool
	TimedOut  bool
	Duration  time.Duration
}

// Defaults of a Spec.
const (
	defaultMemory = 4 << 30
	defaultPIDs   = 4096
)

// Sandbox runs commands, several at a time if asked to.
type Sandbox struct {
	runc    string // empty in TierNone
	state   string
	lock    *os.File
	tier    Tier
	cgroups cgroups
	seccomp bool
	deep    bool // what is mounted below a read-only folder is read-only too
	// apart says that commands with network have one of their own, with a proxy as the way out.
	apart bool
	dial  dialer
	ids   identity
	log   logr.Logger
}

// identity is the user outside that root inside stands for.
type identity struct{ uid, gid int }

// stranger is the id that a command has outside where this process is root: in the range that distributions keep
// for such uses, of nobody who logs in, and owner of no file of the machine.
const stranger = 231072

// New finds out what this machine can do, by doing it.
func New(ctx context.Context, o Options) (*Sandbox, error) {
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	s := &Sandbox{log: o.Log, dial: dialOthers, ids: identity{os.Geteuid(), os.Getegid()}}
	if os.Geteuid() == 0 {
		s.ids = identity{stranger, stranger}
	}
	if err := s.open(o.State); err != nil {
		return nil, err
	}
	var err error
	if s.runc, err = findRunc(ctx, o); err == nil {
		err = s.probe(ctx)
	}
	if err == nil {
		s.log.Info("steps run isolated", "tier", s.tier.Name, "missing", s.tier.Missing)
		return s, nil
	}
	if !o.AllowUnisolated {
		return nil, errors.Join(fmt.Errorf("sandbox: this machine cannot isolate steps: %w (install runc and allow user namespaces, or allow unisolated steps explicitly)", err), s.Close())
	}
	s.runc, s.tier = "", Tier{Name: TierNone, Missing: []string{"everything: steps are plain processes of the worker's user, because " + err.Error()}}
	s.log.Info("STEPS ARE NOT ISOLATED", "cause", err.Error())
	return s, nil
}

// open takes the state folder and ends what an earlier process left in it.
func (s *Sandbox) open(state string) error {
	if state == "" {
		state = filepath.Join(os.TempDir(), fmt.Sprintf("slipway-sandbox-%d", os.Geteuid()))
	}
	state, err := filepath.Abs(state)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if err := os.MkdirAll(state, 0o711); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	info, err := os.Lstat(state)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("sandbox: %s is not a folder of this user (remove it, or choose another)", state)
	}
	if s.lock, err = os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("sandbox: another process uses %s (choose another folder)", state), s.lock.Close())
	}
	s.state = state
	return nil
}

// Close gives the state folder free. Commands must have ended.
func (s *Sandbox) Close() error {
	if s.lock == nil {
		return nil
	}
	s.cgroups.remove()
	lock := s.lock
	s.lock = nil
	return lock.Close()
}

// Remove closes the Sandbox and removes its state folder.
func (s *Sandbox) Remove() error {
	if err := s.Close(); err != nil {
		return err
	}
	return RemoveAll(s.state)
}

// Runc is the program that isolates; empty in TierNone.
func (s *Sandbox) Runc() string { return s.runc }

// Tier says what New found.
func (s *Sandbox) Tier() Tier {
	tier := s.tier
	tier.Missing = slices.Clone(tier.Missing)
	return tier
}

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,99}$`)

// Run returns when nothing of the command is left, also when ctx ends; the error is then that of ctx. Any other error
// says that the sandbox failed, not the command.
func (s *Sandbox) Run(ctx context.Context, spec Spec) (Result, error) {
	if err := s.check(spec); err != nil {
		return Result{}, fmt.Errorf("sandbox: %w", err)
	}
	if spec.Output == nil {
		spec.Output = func(string, []byte) {}
	}
	timed, cancel := ctx, context.CancelFunc(func() {})
	if spec.Timeout > 0 {
		timed, cancel = context.WithTimeout(ctx, spec.Timeout)
	}
	defer cancel()
	start := time.Now()
	var result Result
	var err error
	if s.runc == "" {
		result, err = plain(timed, spec)
	} else {
		result, err = s.contained(timed, spec)
	}
	result.Duration = time.Since(start)
	switch {
	case ctx.Err() != nil:
		return result, ctx.Err()
	case timed.Err() != nil:
		result.TimedOut = true
		return result, nil
	case err != nil:
		return result, fmt.Errorf("sandbox: %w", err)
	}
	return result, nil
}

func (s *Sandbox) check(spec Spec) error {
	switch {
	case !validID.MatchString(spec.ID):
		return fmt.Errorf("id %q: want letters, digits and hyphens", spec.ID)
	case len(spec.Command) == 0:
		return errors.New("no command")
	case spec.Workspace != "" && !filepath.IsAbs(spec.Workspace):
		return fmt.Errorf("workspace %s: want an absolute path", spec.Workspace)
	}
	for _, m := range spec.Mounts {
		if !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target {
			return fmt.Errorf("mount %s at %s: want clean absolute paths", m.Source, m.Target)
		}
	}
	if spec.RootFS == "" || os.Geteuid() != 0 || s.runc == "" {
		return nil
	}
	for dir := filepath.Clean(spec.RootFS); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("root file system %s: other users cannot pass %s (chmod o+x, or keep the worker's cache elsewhere)", spec.RootFS, dir)
		}
		if dir == "/" {
			return nil
		}
	}
}
