package gitea

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A crash loses nothing that was pushed, and the host comes back where it was.
func TestKilledAndRestarted(t *testing.T) {
	ctx := t.Context()
	start := time.Now()
	h, err := Start(ctx, Options{Dir: t.TempDir(), Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Kill()
	t.Logf("started in %s", time.Since(start).Round(time.Millisecond))
	robin, err := h.User(ctx, "robin")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := h.User(ctx, "robin"); err != nil || again != robin {
		t.Errorf("%+v, %v", again, err)
	}
	if err := h.Org(ctx, "fleet"); err != nil {
		t.Fatal(err)
	}
	repo, err := h.Repository(ctx, "fleet", "production", robin)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	git(t, work, "init", "-q", "-b", "main")
	git(t, work, "commit", "-q", "--allow-empty", "-m", "Begin")
	git(t, work, "push", "-q", repo.CloneURL(robin), "main")
	h.Kill()
	if _, err := exec.CommandContext(ctx, "git", "-C", work, "ls-remote", repo.CloneURL(robin)).CombinedOutput(); err == nil {
		t.Error("it answers after it was killed")
	}
	start = time.Now()
	if err := h.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("restarted in %s", time.Since(start).Round(time.Millisecond))
	git(t, work, "fetch", "-q", repo.CloneURL(robin), "main:seen")
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := Start(ctx, Options{Dir: filepath.Dir(h.LogFile())}); err == nil {
		t.Error("a second host in the same folder")
	}
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=Robin", "-c", "user.email=robin@example.com"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args[0], err, out)
	}
}
