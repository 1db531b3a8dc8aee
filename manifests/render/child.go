package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path"
	"runtime/debug"
	"sync"

	"github.com/slipway-cd/slipway/gitsource"
)

// Child renders what it is asked for on in until in ends, and returns nil then.
// It is the body of a process of its own: it closes the process's ways to the
// network, to other programs and to standard output for good.
func Child(in io.Reader, out io.Writer) error {
	os.Stdout = os.Stderr // the protocol owns standard output; kustomize prints warnings
	log.SetOutput(io.Discard)
	http.DefaultTransport = noNetwork{}
	if err := os.Setenv("PATH", ""); err != nil {
		return err
	}
	pipe := newPipe(in, out)
	for {
		request, _, err := pipe.receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("render child: %w", err)
		}
		if request.Op != opRender || request.Spec == nil {
			return errors.New("render child: a render was expected")
		}
		debug.SetMemoryLimit(request.Memory / 10 * 9)
		content, err := renderOne(&repository{pipe: pipe}, *request.Spec)
		answer := message{Op: opDone}
		if err != nil {
			var broken brokenPipe
			if errors.As(err, &broken) {
				return fmt.Errorf("render child: %w", err)
			}
			answer, content = message{Op: opFailed, Failure: failureOf(err, request.Spec.Path)}, nil
		}
		if err := pipe.send(answer, content); err != nil {
			return fmt.Errorf("render child: %w", err)
		}
	}
}

// noNetwork is the transport of a process that renders.
type noNetwork struct{}

func (noNetwork) RoundTrip(request *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s://%s: rendering does not use the network", request.URL.Scheme, request.URL.Host)
}

// renderOne renders spec and returns its objects as a JSON array.
func renderOne(repo *repository, spec Spec) (content []byte, err error) {
	defer func() {
		if recover() != nil { // the value may quote a manifest, so it is not repeated
			err = &Error{Path: spec.Path, Cause: errors.New("the renderer panicked on it")}
		}
		if repo.broken != nil {
			err = repo.broken
		}
		if err != nil {
			err = redacted(err, hidden(append(repo.secrets(), spec.secrets()...)))
		}
	}()
	repo.sealed = spec.KeepEncrypted
	if repo.keys, err = keysOf(spec); err != nil {
		return nil, err
	}
	objects, err := renderObjects(repo, spec)
	if err == nil && repo.refusal != nil {
		// A library went on without what was refused to it.
		err = repo.refusal
	}
	if err != nil {
		return nil, err
	}
	repo.hide(dataOf(objects)...)
	if objects, err = overlaid(repo, objects, spec); err != nil {
		return nil, err
	}
	if err := substituteAll(objects, spec); err != nil {
		return nil, err
	}
	if err := finish(objects, spec); err != nil {
		return nil, err
	}
	return encodeObjects(objects, spec)
}

func renderObjects(repo *repository, spec Spec) ([]located, error) {
	_, kind, err := repo.stat(spec.Path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case gitsource.Directory:
	case gitsource.Absent:
		return nil, &Error{Path: spec.Path, Cause: errors.New("is not in the repository (see spec.path)")}
	default:
		return nil, &Error{Path: spec.Path, Cause: errors.New("is a file; spec.path names a folder")}
	}
	if spec.Helm != nil {
		return renderChart(repo, spec)
	}
	for _, name := range kustomizationNames() {
		_, kind, err := repo.stat(path.Join(spec.Path, name))
		if err != nil {
			return nil, err
		}
		if kind == gitsource.File {
			return renderKustomization(repo, spec, path.Join(spec.Path, name))
		}
	}
	return renderFolder(repo, spec)
}

func encodeObjects(objects []located, spec Spec) ([]byte, error) {
	if len(objects) > maxObjects {
		return nil, &Error{Path: spec.Path, Cause: limitf("renders to %d objects: more than the limit of %d", len(objects), maxObjects)}
	}
	all := make([]map[string]any, len(objects))
	for i, one := range objects {
		all[i] = one.object.Object
	}
	content, err := json.Marshal(all)
	if err != nil {
		return nil, &Error{Path: spec.Path, Cause: err}
	}
	if len(content) > maxSetBytes {
		return nil, &Error{Path: spec.Path, Cause: limitf("renders to %d bytes: more than the limit of %d", len(content), maxSetBytes)}
	}
	return content, nil
}

// brokenPipe is the end of the parent.
type brokenPipe struct{ error }

// repository is the child's view of the repository: what the parent answers.
type repository struct {
	pipe *pipe

	mu      sync.Mutex
	stats   map[string]message
	files   []file    // read so far, in order
	keys    *sopsKeys // nil: encrypted files are refused
	sealed  bool      // encrypted files are kept as they are
	hidden  []string  // values that no error may hold
	refusal error     // the first thing that was refused; libraries bury such errors
	broken  error
}

// file is a file as it was read.
type file struct {
	path    string
	content []byte
}

// ask sends a request to the parent. Refusals come back as *Error.
func (r *repository) ask(op, name string) (message, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return message{}, nil, r.broken
	}
	if known, ok := r.stats[name]; ok && op == opStat {
		return known, nil, nil
	}
	if err := r.pipe.send(message{Op: op, Path: name}, nil); err != nil {
		r.broken = brokenPipe{err}
		return message{}, nil, r.broken
	}
	answer, content, err := r.pipe.receive()
	if err != nil {
		r.broken = brokenPipe{err}
		return message{}, nil, r.broken
	}
	if answer.Failure != nil {
		return message{}, nil, r.refused(answer.Failure.err())
	}
	if op == opStat {
		if r.stats == nil {
			r.stats = map[string]message{}
		}
		r.stats[name] = answer
	}
	return answer, content, nil
}

// hide keeps values out of errors.
func (r *repository) hide(values ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hidden = append(r.hidden, values...)
}

// refused notes and returns the first refusal.
func (r *repository) refused(err error) error {
	if r.refusal == nil {
		r.refusal = err
	}
	return err
}

// stat returns what is at name, links followed, and the path without links.
func (r *repository) stat(name string) (resolved string, kind gitsource.EntryKind, err error) {
	answer, _, err := r.ask(opStat, name)
	return answer.Path, answer.Kind, err
}

// read returns the content of the file at name; found is false when there is none.
func (r *repository) read(name string) (content []byte, found bool, err error) {
	answer, content, err := r.ask(opRead, name)
	if err != nil || answer.Kind != gitsource.File {
		return nil, false, err
	}
	if content, err = r.decrypted(name, content); err != nil {
		return nil, false, err
	}
	r.mu.Lock()
	r.files = append(r.files, file{path: name, content: content})
	r.mu.Unlock()
	return content, true, nil
}

// walk visits the files below dir, sorted, links followed. skip leaves entries out, folders with all below.
func (r *repository) walk(dir string, skip func(name string, isDir bool) bool, visit func(name string) error) error {
	return r.walkFrom(dir, nil, skip, visit)
}

func (r *repository) walkFrom(dir string, above []string, skip func(string, bool) bool, visit func(string) error) error {
	answer, _, err := r.ask(opList, dir)
	if err != nil {
		return err
	}
	for _, one := range above {
		if one == answer.Path {
			return r.refused(&Error{Path: dir, Cause: limitText("links to a folder above itself: endless recursion")})
		}
	}
	if len(above) > maxDepth {
		return r.refused(&Error{Path: dir, Cause: limitf("more than %d folders deep: the limit", maxDepth)})
	}
	above = append(above, answer.Path)
	for _, item := range answer.Names {
		name := path.Join(dir, item)
		if skip(name, false) {
			continue
		}
		_, kind, err := r.stat(name)
		if err != nil {
			return err
		}
		switch kind {
		case gitsource.Directory:
			if skip(name, true) {
				continue
			}
			err = r.walkFrom(name, above, skip, visit)
		case gitsource.File:
			err = visit(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
