package signature_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/signature"
)

// repository is one of real Git, whose commits and tags are signed by real programs.
type repository struct {
	*testing.T
	dir string
	env []string
}

const made = "2026-03-04T05:06:07Z"

func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{T: t, dir: t.TempDir(), env: append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@b", "GIT_AUTHOR_DATE="+made, "GIT_COMMITTER_DATE="+made)}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *repository) run(input []byte, name string, args ...string) []byte {
	r.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, r.env, bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return out
}

func (r *repository) git(args ...string) string {
	r.Helper()
	return strings.TrimSpace(string(r.run(nil, "git", args...)))
}

// object returns what Git stores of a commit or tag.
func (r *repository) object(kind, name string) []byte {
	r.Helper()
	return r.run(nil, "git", "cat-file", kind, name)
}

// commit makes a commit with options and returns what Git stores.
func (r *repository) commit(options ...string) []byte {
	r.Helper()
	r.git(append([]string{"commit", "-q", "--allow-empty", "-m", "Subject\n\nBody\n"}, options...)...)
	return r.object("commit", "HEAD")
}

func (r *repository) head() gitsource.ObjectID { return gitsource.ObjectID(r.git("rev-parse", "HEAD")) }

// sshKey makes a key pair and returns its file; NAME.pub is beside it.
func (r *repository) sshKey(name string, options ...string) string {
	r.Helper()
	file := filepath.Join(r.TempDir(), name)
	if len(options) == 0 {
		options = []string{"-t", "ed25519"}
	}
	r.run(nil, "ssh-keygen", append([]string{"-q", "-N", "", "-C", name, "-f", file}, options...)...)
	return file
}

// public is a key as allowed signers want it: type and key.
func (r *repository) public(file string) string {
	r.Helper()
	content, err := os.ReadFile(file + ".pub")
	if err != nil {
		r.Fatal(err)
	}
	return strings.Join(strings.Fields(string(content))[:2], " ")
}

// signWithSSH has Git sign with a key from here on.
func (r *repository) signWithSSH(file string) {
	r.Helper()
	r.git("config", "gpg.format", "ssh")
	r.git("config", "user.signingKey", file)
}

// allowed are keys from lines of an allowed signers file.
func allowed(t *testing.T, lines ...string) signature.Keys {
	t.Helper()
	keys, err := signature.ParseKeys(map[string][]byte{signature.AllowedSigners: []byte(strings.Join(lines, "\n") + "\n")})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
