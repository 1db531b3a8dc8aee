package reconciler

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// said counts how often a host is asked, and is what it says.
type said struct {
	asked int
	err   error
}

func (s *said) AllOpen(context.Context, Hosted, string) ([]forge.PullRequest, error) {
	s.asked++
	return []forge.PullRequest{{Number: int64(s.asked)}}, s.err
}

// unopened opens no store: who asks a host does not read Git.
type unopened struct{}

func (unopened) Open(context.Context, string, Credentials) (Repository, error) { return nil, nil }

// A set is worked on whenever one of its Applications turns; the host is asked when it is time, or when something moved.
func TestHostIsAskedWhenItIsTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	host := &said{}
	apps := &ApplicationReconciler{ApplicationOptions: ApplicationOptions{Now: func() time.Time { return now }, Repositories: unopened{}}, opened: map[types.UID]opened{}}
	r := NewApplicationSet(apps, host)
	set := &v1alpha1.ApplicationSet{ObjectMeta: metav1.ObjectMeta{Name: "shops", Generation: 1, Annotations: map[string]string{}}}
	set.Spec.PullRequests = &v1alpha1.PullRequestGenerator{Interval: metav1.Duration{Duration: time.Minute}}
	source := &v1alpha1.GitSource{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "1", Generation: 1}}
	ask := func(what string, after time.Duration, want int) answer {
		t.Helper()
		now = now.Add(after)
		got := r.proposed(t.Context(), set, source, "main")
		if host.asked != want {
			t.Errorf("%s: asked %d times, want %d", what, host.asked, want)
		}
		if got.err == nil && (len(got.list) != 1 || got.list[0].Number != int64(host.asked)) {
			t.Errorf("%s: an old answer %v", what, got.list)
		}
		return got
	}
	ask("first", 0, 1)
	ask("soon after", 50*time.Second, 1)
	ask("after the interval", 20*time.Second, 2)
	source.Status.Revision = "refs/heads/main@sha1:a"
	ask("a merge", 0, 3)
	set.Annotations[annotationReconcile] = "now"
	ask("on demand", 0, 4)
	set.Generation++
	ask("another spec", 0, 5)
	source.Generation++
	ask("another URL", 0, 6)
	ask("nothing new", 0, 6)

	host.err = errors.New("no answer")
	ask("it breaks down", 70*time.Second, 7)
	for i, wait := range []time.Duration{3, 6, 12, 24, 48, 60, 60} {
		ask("in vain", wait*time.Second-time.Second, 7+i)
		ask("once more", time.Second, 8+i)
	}
	set.Annotations[annotationReconcile] = "again"
	host.err = fmt.Errorf("no: %w", &gitsource.BusyError{Host: "git.example", After: 10 * time.Minute})
	left := ask("it has had enough", 0, 15)
	if again := left.until.Sub(now); again < 10*time.Minute || again > 11*time.Minute {
		t.Errorf("it is asked again after %s", again)
	}
	set.Annotations[annotationReconcile] = "now at last"
	if ask("it wants to be left alone", 9*time.Minute, 15).err == nil {
		t.Error("its last answer was an error")
	}
	host.err = nil
	ask("it has rested", 2*time.Minute, 16)
}
