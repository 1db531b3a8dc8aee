package faults

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

// room is the size of the disk that holds the stores.
const room = 24 << 20

// disk is a small one that an agent has to itself, in a mount namespace of its own: nothing is mounted on the machine.
type disk struct{ dir string }

// within is the program that starts an agent on such a disk. Who is not root is in a user namespace.
func (d disk) within() []string {
	line := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		line = append(line, "--user", "--map-root-user")
	}
	return append(line, "sh", "-c", fmt.Sprintf(`mount -t tmpfs -o size=%d,mode=0700 stores "$0" && exec "$@"`, room), d.dir)
}

// fill takes what is left of the disk but for so many bytes; remove gives it back.
func (d disk) fill(agent *world.Process, name string, left uint64) (remove func() error, err error) {
	inside := filepath.Join("/proc", fmt.Sprint(agent.Pid()), "root", d.dir)
	var stat syscall.Statfs_t
	if err := syscall.Statfs(inside, &stat); err != nil {
		return nil, err
	}
	if size := stat.Blocks * uint64(stat.Bsize); size != room { //nolint:gosec // never negative
		return nil, fmt.Errorf("%s: a disk of %d bytes, want that of %d", inside, size, room)
	}
	path := filepath.Join(inside, name)
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	block := make([]byte, 4096)
	for {
		if err := syscall.Statfs(inside, &stat); err != nil {
			return nil, err
		}
		if stat.Bavail*uint64(stat.Bsize) <= left { //nolint:gosec // never negative
			return func() error { return os.Remove(path) }, nil
		}
		if _, err := file.Write(block); err != nil {
			return nil, err
		}
	}
}

// noise is a file that cannot be made smaller, which no Application reads.
func noise(name string, size int) gitsource.Change {
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails
	return world.Write("docs/"+name, hex.EncodeToString(content[:size/2])+string(content[size/2:]))
}

// The disk with the stores is full. The source that needs room says where and what to do, the others go on as long as there is
// some, and Applications stay as they last were, healed; with room again everything goes on by itself.
func TestFullDisk(t *testing.T) {
	s, other := story{T: t, name: "aground"}, story{T: t, name: "afloat", source: "small"}
	d := disk{filepath.Join(shared.Dir, "agent-aground")}
	s.must(os.MkdirAll(d.dir, 0o700))
	small, err := shared.Source(t.Context(), "small")
	s.must(err)
	second := func(message string, changes ...gitsource.Change) {
		t.Helper()
		_, err := small.Commit(t.Context(), message, changes...)
		s.must(err)
	}
	second("Start", other.setting("settings", "one"))
	agent := s.agent(world.AgentOptions{Within: d.within()})
	s.commit("Start", append(append(s.declared(""), other.declared("")...), s.setting("settings", "one"), world.Write("clusters/demo/small.yaml", `apiVersion: slipway.dev/v1alpha1
kind: GitSource
metadata: {name: small, namespace: slipway-system}
spec: {url: "`+small.URL+`", branch: main, interval: 1s}
`))...)
	s.has("settings", "one")
	other.has("settings", "one")

	began := time.Now()
	give, err := d.fill(agent, "filler", 4<<20)
	s.must(err)
	s.commit("Two, and much else", s.setting("settings", "two"), noise("cargo", 8<<20))
	s.sourceSays("fleet", "git store "+d.dir, "no space left on device", "free space on that disk")
	second("Two", other.setting("settings", "two"))
	other.has("settings", "two")
	s.holds("one")

	// Not a byte is left.
	giveAll, err := d.fill(agent, "last", 0)
	s.must(err)
	second("Three", other.setting("settings", "three"), noise("more", 1<<20))
	s.sourceSays("small", "git store "+d.dir, "no space left on device")
	s.holds("one")
	other.holds("two")

	s.must(errors.Join(give(), giveAll()))
	s.has("settings", "two")
	other.has("settings", "three")
	select {
	case <-agent.Done():
		t.Errorf("the agent has ended; see %s", agent.Log)
	default:
	}
	s.calm(began)
	s.commit("Tidy up", world.Remove("docs/cargo"))
}

// holds holds that an Application is Ready with a value, and is kept at it.
func (s story) holds(value string) {
	s.Helper()
	s.has("settings", value)
	s.spoil("settings")
	s.has("settings", value)
	if text := s.failures(); text != "" {
		s.Errorf("events:\n%s", text)
	}
}

// failures are the warnings of the Application besides those that tell of drift.
func (s story) failures() string {
	s.Helper()
	out, err := shared.Cluster.Kubectl(s.Context(), "get", "events", "-n", world.Namespace, "--field-selector", "involvedObject.name="+s.name+",type=Warning",
		"-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
	s.must(err)
	var lines []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Drift") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
