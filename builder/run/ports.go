package run

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
)

// ErrRefused says that a port will not do what was asked, now or later: an unknown application, a broken Dockerfile. All
// other errors of ports are worth another try.
var ErrRefused = errors.New("refused")

// refusal is an ErrRefused that says its reason alone.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }
func (r *refusal) Unwrap() error { return ErrRefused }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// Queue is what the Loop keeps its state in.
type Queue struct {
	Runs       Table
	Jobs       Table
	RunList    Listing // of Runs
	JobList    Listing // of Jobs
	Leases     Leases
	Owners     Owners // of Leases
	Deliveries Deliveries
	Hints      HintSender
	Logs       LogReader
	Log        LogWriter
}

// WorkerQueue is the part of it that a Worker needs.
type WorkerQueue struct {
	Runs   Reader
	Jobs   Table
	Leases Leases
	Hints  HintTaker
	Log    LogWriter
}

// Reader reads records. builder.ErrNotFound says that there is definitely none.
type Reader interface {
	Get(ctx context.Context, key string) (builder.Record, error)
}

// Table changes records by compare-and-swap: revision 0 says that there is none yet. With builder.ErrConflict nothing was
// changed; after any other error it may have been.
type Table interface {
	Reader
	Put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
}

// Listing shows what there is and what changes. An iteration goes on until its context ends or it fails.
type Listing interface {
	Keys(ctx context.Context, prefix string) ([]string, error)
	Watch(ctx context.Context) iter.Seq2[builder.Record, error]   // all, then changes
	Changes(ctx context.Context) iter.Seq2[builder.Record, error] // changes alone
}

// Leases end by themselves unless they are renewed. builder.ErrConflict says that somebody else holds one, or that it ended.
type Leases interface {
	Acquire(ctx context.Context, key, holder string, ttl time.Duration) (revision uint64, err error)
	Renew(ctx context.Context, key, holder string, revision uint64, ttl time.Duration) (uint64, error)
	Release(ctx context.Context, key string, revision uint64) error
}

// Owners shows which leases are held. An error of Held says that nobody knows.
type Owners interface {
	Held(ctx context.Context, key string) (bool, error)
	Ended(ctx context.Context) iter.Seq2[string, error]
}

// Deliveries are stored once each, and come again until they were handled without an error.
type Deliveries interface {
	Store(ctx context.Context, d builder.Delivery) error
	Consume(ctx context.Context, parallel int, handle func(context.Context, builder.Delivery) error) error
}

// HintSender tells workers where work may be.
type HintSender interface {
	Publish(ctx context.Context, key string) error
}

// HintTaker waits for such a hint. done is called when the work was claimed or is none.
type HintTaker interface {
	Next(ctx context.Context) (key string, done func(), err error)
}

// LogWriter stores lines of a Job in their order.
type LogWriter interface {
	Append(ctx context.Context, run, job string, lines []builder.Log) error
}

// LogReader yields the lines behind a sequence, with follow also those to come.
type LogReader interface {
	Read(ctx context.Context, run, job string, from uint64, follow bool) iter.Seq2[builder.Log, error]
}

// Snapshots reads source repositories.
type Snapshots interface {
	// Snapshot returns the files of a commit; gitsource.ErrNotFound if it is definitely not there.
	Snapshot(ctx context.Context, repo builder.Repo, revision gitsource.Revision) (gitsource.Snapshot, error)
}

// Source reads source repositories for the Loop.
type Source interface {
	Snapshots
	// Committed returns when the commit was made, by its own word: what is built from it carries this time.
	Committed(ctx context.Context, repo builder.Repo, revision gitsource.Revision) (time.Time, error)
}

// Attestor says with the server's signature where an image comes from.
type Attestor interface {
	// Attest signs the image and attaches SBOM and provenance. Calling it again for the same subject changes nothing.
	Attest(ctx context.Context, s Subject) error
}

// Subject is an image with all that is known of how it came about.
type Subject struct {
	Image builder.Image
	Run   builder.Run // its Jobs are the one that made the image, alone, as its worker reported it
	Job   string      // the name of that one
	Build Built       // what the worker says of how it made the image
}

// Promoter puts images into Environments.
type Promoter interface {
	// Promote writes the image, or finds that it is written. ErrRefused where it cannot be, now or later.
	Promote(ctx context.Context, p Promotion) (Promoted, error)
}

// Promotion is what is to be promoted. Its image is attested.
type Promotion struct {
	App         string
	Environment string
	Image       builder.Image
	Run         builder.Run // without Jobs
}

// Promoted is what became of a Promotion.
type Promoted struct {
	Commit gitsource.ObjectID // on the environment repo
	Branch string             // that a request waits on, without refs/heads/
	URL    string             // of the pull request
	// Held says that the image is kept out by a Hold or a freeze, Superseded that a newer one is there: nothing was written.
	Held, Superseded bool
	Reason           string // of that, for people
}

// Statuses shows people on the Git host how a Run stands.
type Statuses interface {
	Status(ctx context.Context, r builder.Run) error
}

// Sandbox runs commands apart from everything else.
type Sandbox interface {
	Tier() Tier
	// Run returns when nothing of the command is left, also when ctx ends. An error says that the sandbox failed, not the command.
	Run(ctx context.Context, s Spec) (Result, error)
}

// Tier is how far a Sandbox keeps a command apart.
type Tier struct {
	Name     string
	Isolated bool
	Missing  []string // in words
}

// Spec is one command.
type Spec struct {
	ID        string // of this command alone; letters, digits and hyphens
	RootFS    string // folder; empty for the machine's own tools, read-only
	Workspace string // folder of the machine, writable at /workspace
	Mounts    []Mount
	Command   []string
	Env       []string // complete
	Dir       string   // inside
	Network   bool
	Limits    Limits
	Timeout   time.Duration // 0 for none
	// Output gets each line as it is printed, without its end, from one goroutine at a time.
	Output func(stream string, line []byte)
}

// Mount is a folder of the machine that a command sees.
type Mount struct {
	Source, Target string
	Writable       bool
}

// Limits bound one command; 0 for the sandbox's own default.
type Limits struct {
	Memory int64 // bytes
	CPUs   float64
	PIDs   int64
}

// Result is how a command ended.
type Result struct {
	ExitCode  int
	OOMKilled bool
	TimedOut  bool
	Duration  time.Duration
}

// Images makes images and unpacks them.
type Images interface {
	// RootFS returns the folder with the files of an image, which nobody may change.
	RootFS(ctx context.Context, reference string) (dir, digest string, err error)
	// BuildGo builds a Go program of the workspace and pushes it as an image. ErrRefused where another try is no use.
	BuildGo(ctx context.Context, image GoImage, workspace string, run Runner) (Built, error)
	// Caches are folders that builds share.
	Caches() []Mount
}

// Runner runs one command of a build in the Job's sandbox. The error says how it ended, and wraps ErrRefused if the
// command itself failed.
type Runner interface {
	Run(ctx context.Context, command, env []string, network bool) error
}

// GoImage is what `uses: go-image` asks for.
type GoImage struct {
	Package    string // below the workspace
	Repository string
	Base       string // empty for the builder's own
	Tags       []string
	Platforms  []string
	LDFlags    string
	Labels     []string // NAME=VALUE
	Revision   gitsource.Revision
	Time       time.Time // of the commit
}

// Built is an image with what went into it.
type Built struct {
	Image     builder.Image `json:"image"`
	GoVersion string        `json:"goVersion,omitempty"`
	Base      string        `json:"base,omitempty"` // reference with digest
	Materials []Material    `json:"materials,omitempty"`
}

// Material is one thing that went into an image.
type Material struct {
	URI    string `json:"uri"`
	Digest string `json:"digest"` // ALGORITHM:HEX
}
