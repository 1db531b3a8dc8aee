package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
)

// LeaseName is the Lease, in the namespace of the Applications, by which agents agree on the one that works.
const LeaseName = "slipway-agent"

// Least and default lifetime of the lease.
const (
	LeastLease   = 2 * time.Second // below, renewing is a matter of luck
	DefaultLease = 15 * time.Second
)

// ErrNotLeading says that a request would have changed the cluster and was not sent, since another agent may be leading.
var ErrNotLeading = errors.New("this agent does not hold the lease " + LeaseName + ", so it changes nothing")

// fence keeps an agent that does not hold the lease from changing anything. The manager ends an agent that could not renew
// its lease, but one that was stopped for a while, by SIGSTOP or a machine short of memory, wakes up in the middle of its work
// and sends the next request before it finds out. So each request that changes something is measured against the last
// renewal, by the clock that goes on while a process stands still.
//
// It ends earlier than the lease does for others: they count from when they saw the renewal, the fence from when it was sent
// off, and a tenth of the lease is left for a request to arrive. Commits need no fence: they are compared and swapped.
type fence struct {
	mu    sync.Mutex
	until time.Time
}

func (f *fence) set(until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = until
}

// open reports whether this agent may change something now.
func (f *fence) open() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.until)
}

// around returns a transport that asks the fence.
func (f *fence) around(next http.RoundTripper) http.RoundTripper { return fenced{f, next} }

type fenced struct {
	fence *fence
	next  http.RoundTripper
}

// RoundTrip sends what only reads, and everything while the lease is held.
func (t fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !t.fence.open() {
		if r.Body != nil {
			_ = r.Body.Close() // a transport has to
		}
		return nil, ErrNotLeading
	}
	return t.next.RoundTrip(r)
}

// fencedLock tells the fence of each renewal.
type fencedLock struct {
	resourcelock.Interface
	fence *fence
	lease time.Duration
}

// Create takes the lease for the first time.
func (l fencedLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.renew(record, func() error { return l.Interface.Create(ctx, record) })
}

// Update takes, renews or gives up the lease.
func (l fencedLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.renew(record, func() error { return l.Interface.Update(ctx, record) })
}

func (l fencedLock) renew(record resourcelock.LeaderElectionRecord, write func() error) error {
	if record.HolderIdentity != l.Identity() {
		l.fence.set(time.Time{}) // given up: nothing more, whether others have heard of it or not
		return write()
	}
	began := time.Now()
	if err := write(); err != nil {
		return err
	}
	l.fence.set(began.Add(l.lease - l.lease/10))
	return nil
}

// elect makes the manager wait for the lease, and fences config. It has to come before config makes any client.
func elect(o *AgentOptions, options *ctrl.Options) error {
	if o.Lease == 0 {
		return nil
	}
	if o.Lease < LeastLease {
		return fmt.Errorf("lease of %s: want at least %s", o.Lease, LeastLease)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	renew, retry := o.Lease*2/3, o.Lease*2/15
	config := rest.CopyConfig(o.Config)
	config.Timeout = max(time.Second, renew/2) // one request that hangs does not cost the lease
	leases, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, o.Namespace, LeaseName, nil, leases, resourcelock.ResourceLockConfig{
		Identity: host + "_" + string(uuid.NewUUID()),
	})
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	border := &fence{}
	o.Config.Wrap(border.around)
	options.LeaderElection, options.LeaderElectionID = true, LeaseName
	options.LeaderElectionResourceLockInterface = fencedLock{lock, border, o.Lease}
	options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = &o.Lease, &renew, &retry
	// The program ends when the manager does, so the lease may be given to the next one at once.
	options.LeaderElectionReleaseOnCancel = true
	return nil
}
