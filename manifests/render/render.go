// Package render turns a path of a Snapshot into a manifests.Set: a folder of
// YAML, a kustomization or a Helm chart.
//
// Rendering runs in child processes with limits on time and memory, and a child
// has no repository: it asks its parent for every file, and the parent records
// what was asked. A Set is memoised by that record. It stays valid for a later
// Snapshot when every recorded read gives the same answer, so a commit costs an
// Application that it does not touch a few look-ups.
//
// The package refuses what would make a Set depend on more than the Snapshot
// and the Spec: remote bases, plugins, exec functions, the helmCharts field,
// links that leave the repository, and unless they are allowed template
// functions that give another answer each time. Helm hooks become hooks of
// Slipway; those of tests, deletions and rollbacks are left out.
//
// On whatever was rendered comes the overlay of the Spec, a kustomization in
// memory. Variables are replaced last, in the tree of each object.
//
// Sets that hold a Secret, or that were rendered with values of one, are
// memoised in memory only; they never reach the disk. So are those of a Spec that
// decrypts what SOPS encrypted, which happens where files are read.
package render

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// version is part of every memo key. Change it with anything that changes what
// a Snapshot renders to, the versions of kustomize and Helm included.
const version = "3 kustomize-0.21.2 helm-3.22.0"

// Limits of one render. They are named in the error that reports them.
const (
	maxFileBytes  = 16 << 20 // one file of the repository
	maxReadBytes  = 64 << 20 // all files together
	maxReads      = 20_000   // requests for files, repeated ones included
	maxSetBytes   = 32 << 20 // the rendered objects as JSON
	maxObjects    = 10_000
	maxDepth      = 64        // nested folders, nested Lists
	maxAliasNodes = 1_000_000 // YAML nodes that aliases add
	maxLinks      = 40        // symbolic links on the way to one file
)

// Spec says what to render and how.
type Spec struct {
	Path        string             // from the root of the repository
	Application string             // label value that every object gets
	Namespace   string             // for namespaced objects that name none; may be empty
	Helm        *v1alpha1.HelmSpec // renders Path as a chart
	KubeVersion string             // of the cluster, "v1.37.2", for charts; default 1.37
	APIVersions []string           // that the cluster serves, for charts: "apps/v1", "apps/v1/Deployment"
	Overlay     v1alpha1.Overlay   // over whatever Path renders to
	Substitute  *v1alpha1.SubstituteSpec
	Decryption  *v1alpha1.DecryptionSpec // of files as they are read
	// KeepEncrypted leaves files that SOPS encrypted as they are, for those who look and do not apply.
	KeepEncrypted bool
	Inputs        []Input // the ConfigMaps and Secrets that Helm and Substitute name, as far as they are there
}

// Result is a rendered Set.
type Result struct {
	Set      manifests.Set
	Memoised bool            // no rendering was needed
	Reads    gitsource.Reads // that the Set depends on
}

// Error is a mistake in the repository or the Spec: rendering again gives the
// same answer until one of them changes. Other errors of Render are worth a retry.
type Error struct {
	Path  string // file or folder in the repository
	Line  int    // 0 when not known
	Cause error
}

// Error returns "apps/shop/deploy.yaml:12: cause".
func (e *Error) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Cause)
	}
	return fmt.Sprintf("%s: %v", e.Path, e.Cause)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ErrLimit is in the chain of every error that reports a limit of time, memory, size or number.
var ErrLimit = errors.New("limit of the renderer")

// Options of a Renderer.
type Options struct {
	Command     []string      // how to start a child: a program and its arguments, which must call Child
	Workers     int           // children at the same time; default 2
	Timeout     time.Duration // of one render; default 30s
	MemoryBytes int64         // resident memory of one child; default 512 MiB
	MemoDir     string        // empty: memoised in memory only
	Metrics     prometheus.Registerer
}

// Renderer renders with a pool of children. It is safe for concurrent use.
type Renderer struct {
	options Options
	slots   chan *process // a nil process is a slot whose child is not started
	spawner *spawner
	memo    *memo
	metrics metrics
	close   sync.Once
}

// New checks the options and opens the memo. Children are started when they are first needed.
func New(options Options) (*Renderer, error) {
	if len(options.Command) == 0 {
		return nil, errors.New("renderer: Options.Command is required: the program that calls render.Child")
	}
	options.Workers = cmp.Or(max(options.Workers, 0), 2)
	options.Timeout = cmp.Or(max(options.Timeout, 0), 30*time.Second)
	options.MemoryBytes = cmp.Or(max(options.MemoryBytes, 0), 512<<20)
	memo, err := openMemo(options.MemoDir)
	if err != nil {
		return nil, err
	}
	metrics, err := newMetrics(options.Metrics)
	if err != nil {
		return nil, err
	}
	r := &Renderer{options: options, slots: make(chan *process, options.Workers), memo: memo, metrics: metrics}
	for range options.Workers {
		r.slots <- nil
	}
	r.spawner = newSpawner()
	return r, nil
}

// Close waits for renders under way and ends the children. The Renderer cannot be used afterwards.
func (r *Renderer) Close() error {
	r.close.Do(func() {
		for range r.options.Workers {
			if child := <-r.slots; child != nil {
				child.end()
			}
		}
		close(r.slots)
		r.spawner.end()
	})
	return nil
}

// Render renders spec from snapshot, or finds the Set that it rendered to before.
func (r *Renderer) Render(ctx context.Context, snapshot gitsource.Snapshot, spec Spec) (Result, error) {
	start := time.Now()
	result, err := r.render(ctx, snapshot.Tree, spec)
	err = spec.hush(err)
	r.metrics.observe(result, err, time.Since(start))
	return result, err
}

func (r *Renderer) render(ctx context.Context, tree gitsource.Tree, spec Spec) (Result, error) {
	spec, err := spec.normalised()
	if err != nil {
		return Result{}, err
	}
	key, err := memoKey(spec)
	if err != nil {
		return Result{}, err
	}
	if found, ok, err := r.memo.find(key, tree); err != nil {
		return Result{}, fmt.Errorf("%s: %w", spec.Path, err)
	} else if ok {
		return Result{Set: found.set, Memoised: true, Reads: found.reads}, nil
	}
	reader := newRecorder(tree)
	content, err := r.work(ctx, spec, reader)
	if errors.Is(err, errDied) { // once may be the machine's doing
		reader = newRecorder(tree)
		content, err = r.work(ctx, spec, reader)
	}
	if errors.Is(err, errDied) {
		// What the process printed may quote a manifest, so it is not repeated.
		err = &Error{Path: spec.Path, Cause: limitText("rendering ended the process that did it, twice (a stack overflow, or memory ran out)")}
	}
	if err != nil {
		return Result{}, err
	}
	set, err := decodeSet(content)
	if err != nil {
		return Result{}, &Error{Path: spec.Path, Cause: err}
	}
	reads := reader.recorded()
	// A memo that cannot be written costs the next start a render, nothing more.
	r.memo.keep(key, entry{reads: reads, set: set, size: len(content)}, content, spec.sensitive() || holdsSecret(set))
	return Result{Set: set, Reads: reads}, nil
}

// normalised returns spec in the form that is memoised.
func (s Spec) normalised() (Spec, error) {
	clean := path.Clean(s.Path)
	if !fs.ValidPath(clean) {
		return s, &Error{Path: s.Path, Cause: errors.New("leaves the repository (spec.path is relative to its root)")}
	}
	s.Path = clean
	if s.Application == "" {
		return s, &Error{Path: s.Path, Cause: errors.New("the name of the Application is required")}
	}
	if problems := validation.IsValidLabelValue(s.Application); len(problems) > 0 {
		return s, &Error{Path: s.Path, Cause: fmt.Errorf("application %q cannot be a label value: %s", s.Application, problems[0])}
	}
	s.APIVersions = slices.Clone(s.APIVersions)
	slices.Sort(s.APIVersions)
	s.APIVersions = slices.Compact(s.APIVersions)
	if s.Helm == nil { // only charts see these, so they must not part the memo of the others
		s.KubeVersion, s.APIVersions = "", nil
	}
	s.Inputs = slices.Clone(s.Inputs)
	slices.SortFunc(s.Inputs, func(a, b Input) int { return strings.Compare(a.String(), b.String()) })
	return s, nil
}
