package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource/trailer"
)

const (
	first  = "example.com/shop@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	second = "example.com/shop@sha256:2222222222222222222222222222222222222222222222222222222222222222"
	third  = "example.com/shop@sha256:3333333333333333333333333333333333333333333333333333333333333333"
)

// fleet is an environment repo in a bare repository of its own, and a person who works on it.
type fleet struct {
	t   *testing.T
	dir string
	env map[string]string
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is missing (apt-get install git)")
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	f := &fleet{t: t, dir: filepath.Join(t.TempDir(), "fleet.git"), env: map[string]string{
		"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com",
	}}
	f.git(".", "init", "-q", "--bare", "-b", "main", f.dir)
	work := t.TempDir()
	for name, content := range map[string]string{
		"slipway.yaml": `apiVersion: slipway.dev/v1alpha1
kind: Delivery
environments:
- name: dev
  path: apps/{app}/dev
  promote: {by: commit}
- name: production
  after: [dev]
  path: apps/{app}/production
  promote: {by: pullRequest}
`,
		"apps/shop/dev/kustomization.yaml":        kustomization,
		"apps/shop/production/kustomization.yaml": kustomization,
	} {
		file := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.git(work, "init", "-q", "-b", "main")
	f.git(work, "add", "-A")
	f.git(work, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-q", "-m", "Start")
	f.git(work, "push", "-q", f.dir, "main")
	return f
}

const kustomization = "resources: [../base]\nimages:\n- name: example.com/shop\n  digest: sha256:1111111111111111111111111111111111111111111111111111111111111111\n"

func (f *fleet) git(dir string, args ...string) string {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), "git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// slipway runs a command and wants its exit code.
func (f *fleet) slipway(want int, args ...string) string {
	f.t.Helper()
	code, out, complaint := command(f.t, f.env, append(args, "--repo", f.dir)...)
	if code != want {
		f.t.Fatalf("slipway %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, complaint)
	}
	return out + complaint
}

func (f *fleet) says(text, want string) {
	f.t.Helper()
	if !strings.Contains(text, want) {
		f.t.Errorf("it does not say %q:\n%s", want, text)
	}
}

// stands wants an image in an environment at the tip.
func (f *fleet) stands(env, image string) {
	f.t.Helper()
	_, digest, _ := strings.Cut(image, "@")
	f.says(f.git(f.dir, "show", "main:apps/shop/"+env+"/kustomization.yaml"), digest)
}

func (f *fleet) tip() string { f.t.Helper(); return f.git(f.dir, "rev-parse", "main") }

func TestPromoteAndMerge(t *testing.T) {
	f := newFleet(t)
	f.says(f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", second, "-m", "new basket"), "is promoted to dev by commit")
	f.stands("dev", second)
	message := f.git(f.dir, "log", "-1", "--format=%an <%ae>%n%B", "main")
	f.says(message, "Ada <ada@example.com>")
	f.says(message, "new basket")
	if changes := trailer.Parse(message).Changes; len(changes) != 1 || changes[0].App != "shop" || changes[0].Environment != "dev" || changes[0].Image != second {
		t.Errorf("trailers: %+v", changes)
	}
	before := f.tip()
	f.says(f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", second), "nothing to do")

	f.says(f.slipway(exitDone, "promote", "shop", "--env", "production"), "slipway promote shop --env production --merge")
	if f.tip() != before {
		t.Error("a request moved main")
	}
	// What is merged is what was asked for, also when dev has gone on meanwhile.
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", third)
	f.says(f.slipway(exitDone, "promote", "shop", "--env", "production", "--merge"), "is promoted to production by commit")
	f.stands("production", second)
	f.stands("dev", third)
	if parents := strings.Fields(f.git(f.dir, "log", "-1", "--format=%P", "main")); len(parents) != 2 {
		t.Errorf("the merge has %d parents", len(parents))
	}
	if branches := f.git(f.dir, "branch", "--list", "promote/*"); branches != "" {
		t.Errorf("the request is still there: %s", branches)
	}
	f.slipway(exitDone, "promote", "shop", "--env", "production", "--merge")
	f.stands("production", third)
}

// Without a cluster, trace tells what stands in Git.
func TestTrace(t *testing.T) {
	f := newFleet(t)
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", second)
	commit := f.tip()
	f.slipway(exitDone, "rollback", "shop", "--env", "dev", "-m", "slow")
	_, digest, _ := strings.Cut(second, "@")
	for _, subject := range []string{commit, commit[:8], digest, second} {
		out := f.slipway(exitDone, "trace", subject)
		for _, want := range []string{"committed", commit[:12], "promoted", "reverted", f.tip()[:12], "held", "cluster", "could not be read"} {
			f.says(out, want)
		}
	}
	f.says(f.slipway(exitDone, "trace", "shop"), commit[:12])
	f.says(f.slipway(exitFailed, "trace", "0123456789"), "nothing is known")
}

func TestHold(t *testing.T) {
	f := newFleet(t)
	f.says(f.slipway(exitDone, "hold", "shop", "--env", "dev", "--image", second, "-m", "leaks memory"), "held in dev")
	f.says(f.slipway(exitNo, "promote", "shop", "--env", "dev", "--image", second), "leaks memory")
	f.stands("dev", first)
	f.slipway(exitDone, "hold", "shop", "--env", "dev", "--lift", "-m", "was the database")
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", second)
	f.stands("dev", second)
}

func TestFreeze(t *testing.T) {
	f := newFleet(t)
	f.says(f.slipway(exitDone, "freeze", "dev", "--for", "1h", "-m", "holidays"), "dev is frozen until")
	f.says(f.slipway(exitNo, "promote", "shop", "--env", "dev", "--image", second), "holidays")
	f.slipway(exitDone, "freeze", "dev", "--lift", "-m", "back")
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", second)
	f.stands("dev", second)
}

func TestRollback(t *testing.T) {
	f := newFleet(t)
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", second)
	good := f.tip()
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", third)
	f.says(f.slipway(exitDone, "rollback", "shop", "--env", "dev", "-m", "slow"), "is rolled back by commit")
	f.stands("dev", second)
	f.slipway(exitNo, "promote", "shop", "--env", "dev", "--image", third)
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", third, "--lift-hold")
	f.slipway(exitDone, "rollback", "shop", "--env", "dev", "--to", good[:8])
	f.stands("dev", second)
	f.says(f.slipway(exitFailed, "rollback", "shop", "--env", "dev", "--to", "0123456789"), "0123456789")
}

func TestEnrol(t *testing.T) {
	f := newFleet(t)
	file := filepath.Join(t.TempDir(), "agent.pem")
	g := &globals{repo: f.dir, branch: "main", output: "json", out: &strings.Builder{}, env: func(key string) string { return f.env[key] }}
	if err := g.enrol(t.Context(), "dev", file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", info.Mode(), err)
	}
	if key := f.git(f.dir, "show", "main:.slipway/agents/dev.pub"); len(key) != 44 {
		t.Errorf("public key: %q", key)
	}
	if err := g.enrol(t.Context(), "dev", file); err == nil {
		t.Error("a private key was overwritten")
	}
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	code, out, complaint := command(t, nil, "init", dir, "--cluster", "eu", "-o", "json")
	var made struct{ Files []string }
	if err := json.Unmarshal([]byte(out), &made); code != exitDone || err != nil || len(made.Files) == 0 {
		t.Fatalf("exit code %d: %v: %s%s", code, err, out, complaint)
	}
	for _, name := range made.Files {
		if strings.Contains(name, "CLUSTER") {
			t.Errorf("%s: not named after the cluster", name)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if code, _, complaint := command(t, nil, "init", dir); code != exitFailed || !strings.Contains(complaint, "there already") {
		t.Errorf("again: exit code %d: %s", code, complaint)
	}
}

func TestWithoutName(t *testing.T) {
	f := newFleet(t)
	f.env = nil
	t.Setenv("HOME", t.TempDir())
	t.Chdir(t.TempDir())
	f.says(f.slipway(exitUsage, "promote", "shop", "--env", "dev", "--image", second), "user.name")
}
