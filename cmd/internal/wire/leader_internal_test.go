package wire

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// lockStub is a lease whose server answers as told: what is tried is the bookkeeping around it.
type lockStub struct {
	resourcelock.Interface
	answer error
}

func (l *lockStub) Identity() string { return "me" }

func (l *lockStub) Update(context.Context, resourcelock.LeaderElectionRecord) error { return l.answer }

func TestFenceFollowsTheLease(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer server.Close()
	border, stub := &fence{}, &lockStub{}
	lock := fencedLock{stub, border, time.Hour}
	kube := &http.Client{Transport: border.around(http.DefaultTransport)}
	try := func(method string) error {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := kube.Do(request)
		if err == nil {
			err = answer.Body.Close()
		}
		return err
	}
	refuses := func(when string) {
		t.Helper()
		before := arrived.Load()
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			if err := try(method); !errors.Is(err, ErrNotLeading) {
				t.Errorf("%s: %s: %v, want refused", when, method, err)
			}
		}
		if arrived.Load() != before {
			t.Errorf("%s: something was sent", when)
		}
		if err := try(http.MethodGet); err != nil {
			t.Errorf("%s: reading: %v", when, err)
		}
	}
	refuses("before the election")
	mine := resourcelock.LeaderElectionRecord{HolderIdentity: "me"}
	stub.answer = errors.New("no answer")
	if err := lock.Update(t.Context(), mine); err == nil {
		t.Error("a failed renewal counts")
	}
	refuses("after a renewal that failed")
	stub.answer = nil
	if err := lock.Update(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if err := try(http.MethodPatch); err != nil {
		t.Errorf("with the lease: %v", err)
	}
	if ends := time.Until(border.until); ends > 55*time.Minute {
		t.Errorf("the fence stands open for %s of an hour", ends)
	}
	border.set(time.Now().Add(-time.Second))
	refuses("after the lease has run out")
	if err := lock.Update(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if err := lock.Update(t.Context(), resourcelock.LeaderElectionRecord{}); err != nil {
		t.Fatal(err)
	}
	refuses("after giving it up")
}
