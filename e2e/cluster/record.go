package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// record is a file in the cache that names what a cluster leaves on the machine if its process is killed: temporary
// folders and the cgroup root, one a line. Its owner holds a lock on it, which the kernel drops with the process, so
// that the next cluster of the same user finds what is abandoned and removes it.
type record struct {
	file *os.File
}

func (c cache) records() string { return filepath.Join(c.dir, "clusters") }

// newRecord makes the record of a cluster that is about to start, and clears up after dead ones.
func (c cache) newRecord(name string) (*record, error) {
	if err := os.MkdirAll(c.records(), 0o755); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	c.sweep()
	f, err := os.CreateTemp(c.records(), name+"-")
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("record: %w", err), f.Close())
	}
	return &record{file: f}, nil
}

// add notes something to remove; kind is "folder" or "cgroup".
func (r *record) add(kind, what string) error {
	if _, err := fmt.Fprintln(r.file, kind, what); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// done forgets the record once everything in it is gone.
func (r *record) done() error {
	return errors.Join(os.Remove(r.file.Name()), r.file.Close())
}

// sweep removes what clusters of killed processes have left. It is a courtesy: what cannot be removed stays recorded.
func (c cache) sweep() {
	entries, err := os.ReadDir(c.records())
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(c.records(), e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if info, err := f.Stat(); err == nil && info.Size() > 0 && removeRecorded(f) == nil {
				_ = os.Remove(path)
			}
		}
		_ = f.Close()
	}
}

func removeRecorded(f *os.File) error {
	var errs []error
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		kind, what, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "folder":
			errs = append(errs, os.RemoveAll(what))
		case "cgroup":
			errs = append(errs, detectCgroups(what).remove())
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}
