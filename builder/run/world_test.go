package run

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
	"github.com/slipway-cd/slipway/builder/queue"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
)

const shopPipeline = `name: shop
stages:
  - name: test
    steps:
      - uses: checkout
      - run: |
          cat hello.txt
          echo tested > result
  - name: image
    needs: [test]
    steps:
      - uses: checkout
      - uses: go-image
        with: {repository: registry.example/shop}
  - name: dev
    needs: [image]
    environment: dev
    steps:
      - uses: promote
        with: {app: shop}
`

// tree is a repository's files in memory.
type tree struct{ fstest.MapFS }

func (t tree) Entry(name string) (gitsource.Entry, error) {
	info, err := t.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return gitsource.Entry{}, nil
	}
	if err != nil {
		return gitsource.Entry{}, err
	}
	e := gitsource.Entry{Kind: gitsource.File, Size: info.Size()}
	switch {
	case info.IsDir():
		e.Kind = gitsource.Directory
	case info.Mode()&fs.ModeSymlink != 0:
		e.Kind = gitsource.Symlink
	case info.Mode()&fs.ModeIrregular != 0:
		e.Kind = gitsource.Submodule
	case info.Mode()&0o100 != 0:
		e.Kind = gitsource.Executable
	}
	return e, nil
}

// brief is the lease of tests in which somebody dies: the next one has to wait for it. On a machine that is busy it can be
// too brief for the living too, so such tests allow for any number of lost owners.
const (
	brief  = time.Second
	always = 1_000_000
)

// world is one queue with what runs on it. Its ports are shared by all processes and remember what was done.
type world struct {
	t       *testing.T
	dir     string
	address string
	server  *queue.Server
	lease   time.Duration
	lost    int
	release chan struct{} // closed at the end: whoever is stopped at a failpoint goes on

	mu       sync.Mutex
	files    map[gitsource.ObjectID]fstest.MapFS
	broken   error // what the source says
	attested map[string]int
	signErr  error
	promoted map[string]string // commit by run and environment
	asked    int               // of the promoter
	answer   func(Promotion) (Promoted, error)
	built    map[string]int // digests
	statuses []builder.State
	commands []string
	gates    map[string]*gate
	tier     Tier
}

// gate stops a command whose script names it.
type gate struct {
	reached chan struct{}
	open    chan struct{}
	killed  chan struct{}
	once    sync.Once
}

func newMortalWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.lease, w.lost = brief, always
	return w
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), release: make(chan struct{}), lease: 15 * time.Second,
		files: map[gitsource.ObjectID]fstest.MapFS{}, attested: map[string]int{}, promoted: map[string]string{}, built: map[string]int{},
		gates: map[string]*gate{}, tier: Tier{Name: "none", Missing: []string{"everything"}},
	}
	w.serve()
	t.Cleanup(func() { w.server.Close() })
	return w
}

func (w *world) serve() {
	w.t.Helper()
	s, err := queue.Serve(queue.ServerOptions{StoreDir: w.dir + "/queue", Listen: w.address, Log: logr.Discard()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.server = s
	w.address = strings.TrimPrefix(s.Admin().URL, "nats://") // where it comes back after a restart
}

func (w *world) connect(worker bool) *queue.Queue {
	w.t.Helper()
	login := w.server.Admin()
	if worker {
		login = w.server.Worker()
	}
	q, err := queue.Connect(within(w.t), queue.Options{Login: login, Worker: worker, Log: logr.Discard()})
	if err != nil {
		w.t.Fatal(err)
	}
	return q
}

// process is a Loop or a Worker with a connection of its own. When it dies, nothing that it does has an effect any more.
type process struct {
	w      *world
	q      *queue.Queue
	loop   *Loop
	worker *Worker
	dead   chan struct{}
	stop   context.CancelFunc
	ended  chan struct{}
	once   sync.Once
}

func (p *process) die() {
	p.once.Do(func() {
		close(p.dead)
		p.q.Close()
	})
}

// alive is asked by each port: the dead do nothing.
func (p *process) alive() error {
	select {
	case <-p.dead:
		return errors.New("this process is dead")
	default:
		return nil
	}
}

// at returns a failpoint that ends the process at the named point.
func (p *process) at(name string) func(string) {
	var once sync.Once
	return func(here string) {
		if here == name {
			once.Do(p.die)
		}
		if p.alive() != nil {
			<-p.w.release
		}
	}
}

func (p *process) run(serve func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.ended)
		_ = serve(ctx)
	}()
	p.w.t.Cleanup(func() {
		stop()
		p.die()
		p.w.releaseAll()
		<-p.ended
	})
}

func (w *world) releaseAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.release:
	default:
		close(w.release)
	}
}

func (w *world) process(worker bool) *process {
	return &process{w: w, q: w.connect(worker), dead: make(chan struct{}), ended: make(chan struct{})}
}

func testLog(t *testing.T) logr.Logger {
	if os.Getenv("VERBOSE") == "" {
		return logr.Discard()
	}
	return funcr.New(func(_, args string) { fmt.Fprintln(os.Stderr, t.Name(), args) }, funcr.Options{LogTimestamp: true})
}

func (w *world) options(p *process) Options {
	q := p.q
	return Options{
		Queue: Queue{
			Runs: q.Runs, Jobs: q.Jobs, RunList: q.Runs, JobList: q.Jobs, Leases: q.Leases, Owners: q.Leases,
			Deliveries: q.Deliveries, Hints: q.Hints, Logs: q.Logs, Log: q.Logs,
		},
		Source: ports{p}, Attestor: ports{p}, Promoter: ports{p}, Statuses: ports{p}, Lease: w.lease,
		Sweep: 500 * time.Millisecond, Lost: w.lost, Backoff: 5 * time.Millisecond, Now: time.Now, Log: testLog(w.t),
	}
}

func (w *world) startLoop(change ...func(*process, *Options)) *process {
	w.t.Helper()
	p := w.process(false)
	o := w.options(p)
	for _, c := range change {
		c(p, &o)
	}
	l, err := NewLoop(o)
	if err != nil {
		w.t.Fatal(err)
	}
	p.loop = l
	p.run(l.Serve)
	return p
}

var workers atomic.Int64 //nolint:gochecknoglobals // names for the workers of all tests

func (w *world) startWorker(change ...func(*process, *WorkerOptions)) *process {
	w.t.Helper()
	p := w.process(true)
	q := p.q
	o := WorkerOptions{
		Name: fmt.Sprintf("w%d", workers.Add(1)), Dir: w.dir + "/work",
		Queue:  WorkerQueue{Runs: q.Runs, Jobs: q.Jobs, Leases: q.Leases, Hints: q.Hints, Log: q.Logs},
		Source: ports{p}, Sandbox: ports{p}, Images: ports{p}, Lease: w.lease, Drain: -1, Now: time.Now, Log: testLog(w.t),
		Secrets: []policy.Secret{policy.NewSecret("hunter2-hunter2")},
	}
	for _, c := range change {
		c(p, &o)
	}
	worker, err := NewWorker(o)
	if err != nil {
		w.t.Fatal(err)
	}
	p.worker = worker
	p.run(worker.Serve)
	return p
}

// ports are the world as one process sees it.
type ports struct{ p *process }

func (x ports) Snapshot(_ context.Context, _ builder.Repo, r gitsource.Revision) (gitsource.Snapshot, error) {
	w := x.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := errors.Join(x.p.alive(), w.broken); err != nil {
		return gitsource.Snapshot{}, err
	}
	files, ok := w.files[r.ID]
	if !ok {
		return gitsource.Snapshot{}, fmt.Errorf("%s: %w", r.ID, gitsource.ErrNotFound)
	}
	return gitsource.Snapshot{Revision: r, Tree: tree{files}}, nil
}

func (x ports) Committed(context.Context, builder.Repo, gitsource.Revision) (time.Time, error) {
	return time.Unix(1_000_000, 0).UTC(), x.p.alive()
}

func (x ports) Attest(_ context.Context, s Subject) error {
	w := x.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := errors.Join(x.p.alive(), w.signErr); err != nil {
		return err
	}
	if s.Image.Revision.ID != s.Run.Revision.ID || len(s.Run.Jobs) != 1 || s.Run.Jobs[0].Name != s.Job || s.Run.Jobs[0].Tier == "" || s.Run.Jobs[0].Finished.IsZero() {
		w.t.Errorf("a subject that says too little: %+v", s)
	}
	if w.built[s.Image.Digest] == 0 {
		w.t.Errorf("attested %s, which nobody built", s.Image.Digest)
	}
	w.attested[s.Image.Digest]++
	return nil
}

func (x ports) Promote(_ context.Context, p Promotion) (Promoted, error) {
	w := x.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := x.p.alive(); err != nil {
		return Promoted{}, err
	}
	w.asked++
	if w.answer != nil {
		return w.answer(p)
	}
	if w.attested[p.Image.Digest] == 0 {
		w.t.Errorf("promoted %s, which was not attested", p.Image.Digest)
	}
	id := p.Run.ID + " " + p.App + " " + p.Environment
	if w.promoted[id] == "" {
		w.promoted[id] = fmt.Sprintf("%040x", len(w.promoted)+1)
	}
	return Promoted{Commit: gitsource.ObjectID(w.promoted[id])}, nil
}

func (x ports) Status(_ context.Context, r builder.Run) error {
	w := x.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := x.p.alive(); err != nil {
		return err
	}
	w.statuses = append(w.statuses, r.State)
	return nil
}

func (x ports) Tier() Tier { return x.p.w.tier }

// Run executes the command without any sandbox. A script that begins with "gate NAME" stops there.
func (x ports) Run(ctx context.Context, s Spec) (Result, error) {
	w := x.p.w
	if err := x.p.alive(); err != nil {
		return Result{}, err
	}
	script := s.Command[len(s.Command)-1]
	w.mu.Lock()
	w.commands = append(w.commands, script)
	w.mu.Unlock()
	name, gated := strings.CutPrefix(strings.TrimSpace(script), "gate ")
	switch {
	case gated:
		return w.gate(name).pass(ctx)
	case script == "instant":
		return Result{}, nil
	}
	c := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...)
	c.Dir, c.Env = s.Workspace, s.Env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	out, err := c.StdoutPipe()
	if err != nil {
		return Result{}, err
	}
	c.Stderr = c.Stdout
	if err := c.Start(); err != nil {
		return Result{}, err
	}
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.Output("stdout", []byte(strings.TrimSuffix(line, "\n")))
		}
		if err != nil {
			break
		}
	}
	var exit *exec.ExitError
	if err := c.Wait(); err != nil && !errors.As(err, &exit) {
		return Result{}, err
	}
	return Result{ExitCode: c.ProcessState.ExitCode()}, nil
}

func (w *world) gate(name string) *gate {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gates[name] == nil {
		w.gates[name] = &gate{reached: make(chan struct{}, 16), open: make(chan struct{}), killed: make(chan struct{}, 16)}
	}
	return w.gates[name]
}

func (g *gate) pass(ctx context.Context) (Result, error) {
	g.reached <- struct{}{}
	select {
	case <-g.open:
		return Result{}, nil
	case <-ctx.Done():
		g.killed <- struct{}{}
		return Result{ExitCode: 137}, nil
	}
}

func (g *gate) unlock() { g.once.Do(func() { close(g.open) }) }

func (x ports) RootFS(context.Context, string) (string, string, error) {
	return "/", "sha256:root", nil
}
func (x ports) Caches() []Mount { return nil }

// BuildGo is as reproducible as the real one: the same commit gives the same digest.
func (x ports) BuildGo(ctx context.Context, image GoImage, workspace string, run Runner) (Built, error) {
	if err := run.Run(ctx, []string{"/bin/sh", "-c", "echo built; test -e hello.txt"}, []string{"GOFLAGS=-trimpath"}, false); err != nil {
		return Built{}, err
	}
	if _, err := os.Stat(workspace + "/hello.txt"); err != nil {
		return Built{}, err
	}
	digest := digestOf(image.Revision.ID)
	w := x.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := x.p.alive(); err != nil {
		return Built{}, err
	}
	if image.Time.IsZero() {
		w.t.Error("no time of the commit")
	}
	w.built[digest]++
	return Built{Image: builder.Image{Repository: image.Repository, Digest: digest}, GoVersion: "go1.26.8"}, nil
}

func digestOf(id gitsource.ObjectID) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(id)))
}

// commit adds a commit with a definition; an empty one is none.
func (w *world) commit(n int, definition string) gitsource.ObjectID {
	id := gitsource.ObjectID(fmt.Sprintf("%040x", n))
	files := fstest.MapFS{"hello.txt": {Data: []byte("hello\n")}, "sub/go": {Data: []byte("x"), Mode: 0o755}}
	if definition != "" {
		files[".pipeline.yml"] = &fstest.MapFile{Data: []byte(definition)}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[id] = files
	return id
}

func push(id gitsource.ObjectID) builder.Delivery {
	return builder.Delivery{
		ID: "guid-" + string(id), Repo: builder.Repo{Name: "shop", URL: "https://git.example/shop"}, Actor: "ann",
		Revision: gitsource.Revision{URL: "https://git.example/shop", Ref: "refs/heads/main", ID: id}, ReceivedAt: time.Now(),
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok, and fails with what it says last.
func eventually(t *testing.T, ok func() (bool, any)) {
	t.Helper()
	ctx, tick := within(t), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		good, why := ok()
		if good {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%+v", why)
		case <-tick.C:
		}
	}
}

// ends waits until the Run of a delivery has ended, as p sees it.
func (w *world) ends(p *process, d builder.Delivery) builder.Run {
	w.t.Helper()
	var r builder.Run
	eventually(w.t, func() (bool, any) {
		var err error
		r, err = p.loop.Run(w.t.Context(), deliveredID(d))
		return err == nil && r.State.Ended(), fmt.Sprintf("%+v %v", r, err)
	})
	return r
}

// good checks that a Run of shopPipeline did everything, and that everything was done once.
func (w *world) good(r builder.Run) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.State != builder.Succeeded || len(r.Jobs) != 3 {
		w.t.Fatalf("%+v", r)
	}
	digest := digestOf(r.Revision.ID)
	image := r.Jobs[1]
	if len(image.Images) != 1 || image.Images[0].Digest != digest || image.Images[0].Revision.ID != r.Revision.ID {
		w.t.Errorf("images: %+v", image)
	}
	if w.attested[digest] == 0 {
		w.t.Error("not attested")
	}
	commit := w.promoted[r.ID+" shop dev"]
	if p := r.Jobs[2].Promotion; p == nil || commit == "" || string(p.Commit) != commit || p.Environment != "dev" || p.App != "shop" {
		w.t.Errorf("promotion %+v, on Git %q", p, commit)
	}
	for _, j := range r.Jobs {
		if j.State != builder.Succeeded || j.Finished.IsZero() || j.Started.IsZero() || slices.ContainsFunc(j.Steps, func(s builder.Step) bool { return s.State != builder.Succeeded }) {
			w.t.Errorf("job %+v", j)
		}
	}
}

func (w *world) logOf(p *process, id, job string) string {
	w.t.Helper()
	var b strings.Builder
	for line, err := range p.loop.Logs(within(w.t), id, job, 0, true) {
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %s\n", line.Stream, line.Text)
	}
	return b.String()
}

func loopStage(t *testing.T, p *process, id string) pipeline.Stage {
	t.Helper()
	rec, _, err := p.loop.load(within(t), id)
	if err != nil {
		t.Fatal(err)
	}
	definition, err := pipeline.Parse(rec.Pipeline)
	if err != nil {
		t.Fatal(err)
	}
	return definition.Stages[0]
}
