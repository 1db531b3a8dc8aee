package queue

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The names in NATS.
const (
	runBucket   = "SLIPWAY_RUNS"
	jobBucket   = "SLIPWAY_JOBS"
	leaseBucket = "SLIPWAY_LEASES"

	deliveryStream   = "SLIPWAY_DELIVERIES"
	deliverySubject  = "slipway.deliveries"
	deliveryConsumer = "loop"

	hintStream   = "SLIPWAY_HINTS"
	hintSubject  = "slipway.hints"
	hintConsumer = "workers"

	logStream  = "SLIPWAY_LOGS"
	logSubject = "slipway.logs"

	workerInbox = "_INBOX_SLIPWAY_WORKER"
)

// Options says where the queue is and how much it keeps.
type Options struct {
	// Server is the embedded server of this process, reached without a network. Else Login says where to connect.
	Server *Server
	Login  Login
	// Worker connects with no more than a worker may do: Deliveries and watching fail, and nothing is set up.
	Worker bool
	// Name is shown in the server's list of connections.
	Name string
	// Keep is for how long Runs are kept behind their last change, and repeated deliveries recognised: 90 days if 0.
	Keep time.Duration
	// KeepLogs and LogBytes bound the logs of all Runs together: 14 days and 1 GiB if 0.
	KeepLogs time.Duration
	LogBytes int64
	// Replicas of each stream, for a cluster of NATS: 1 if 0.
	Replicas int
	Log      logr.Logger
}

// Queue is a connection. Its parts may be used by many goroutines at the same time.
type Queue struct {
	Runs       *Table
	Jobs       *Table
	Leases     *Leases
	Deliveries *Deliveries
	Hints      *Hints
	Logs       *Logs

	connection *nats.Conn
}

// Connect returns when everything is there, which it sets up unless o.Worker; or with an error when ctx ends.
func Connect(ctx context.Context, o Options) (*Queue, error) {
	if o.Keep == 0 {
		o.Keep = 90 * 24 * time.Hour
	}
	if o.KeepLogs == 0 {
		o.KeepLogs = 14 * 24 * time.Hour
	}
	if o.LogBytes == 0 {
		o.LogBytes = 1 << 30
	}
	connection, err := dial(o)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	q := &Queue{connection: connection}
	if err := q.wait(ctx, o); err != nil {
		connection.Close()
		return nil, fmt.Errorf("queue %s: %w", connection.Opts.Url, err)
	}
	return q, nil
}

// wait opens the queue as soon as it can be had: a worker may begin before its server. What a server refuses to set up it
// would refuse again.
func (q *Queue) wait(ctx context.Context, o Options) error {
	var refused error
	said := ""
	err := patiently(ctx, func() error {
		err := q.open(ctx, o)
		var answer *jetstream.APIError
		if errors.As(err, &answer) && !o.Worker && answer.Code != http.StatusServiceUnavailable {
			refused = err
			return nil
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			o.Log.Info("waiting for the queue", "cause", said)
		}
		return err
	})
	return errors.Join(err, refused)
}

// Close ends the connection; calls under way fail.
func (q *Queue) Close() { q.connection.Close() }

func dial(o Options) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(o.Name), nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.RetryOnFailedConnect(true), nats.Timeout(5 * time.Second), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.IgnoreAuthErrorAbort(),
		// What is sent while the connection is away fails at once instead of arriving much later.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Log.Info("the connection to the queue broke", "cause", err.Error())
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			o.Log.Info("the queue complains", "cause", err.Error())
		}),
	}
	if o.Worker {
		options = append(options, nats.CustomInboxPrefix(workerInbox))
	}
	login := o.Login
	if o.Server != nil {
		options = append(options, nats.InProcessServer(o.Server.server))
		if login = o.Server.admin; o.Worker {
			login = o.Server.worker
		}
	}
	if login.URL == "" {
		return nil, errors.New("neither an embedded server nor a URL is given")
	}
	if login.User != "" {
		options = append(options, nats.UserInfo(login.User, login.Password.Reveal()))
	}
	return nats.Connect(login.URL, options...)
}

// open sets up what is kept, or finds it.
func (q *Queue) open(ctx context.Context, o Options) error {
	js, err := jetstream.New(q.connection, jetstream.WithDefaultTimeout(5*time.Second))
	if err != nil {
		return err
	}
	if !o.Worker {
		for _, c := range o.streams() {
			if _, err := js.CreateOrUpdateStream(ctx, c); err != nil {
				return fmt.Errorf("stream %s: %w", c.Name, err)
			}
		}
		for stream, c := range consumers() {
			if _, err := js.CreateOrUpdateConsumer(ctx, stream, c); err != nil {
				return fmt.Errorf("consumer %s of stream %s: %w", c.Durable, stream, err)
			}
		}
	}
	q.Runs, q.Jobs, q.Leases = table(js, runBucket), table(js, jobBucket), &Leases{table(js, leaseBucket)}
	hints, err := js.Consumer(ctx, hintStream, hintConsumer)
	if err != nil {
		return fmt.Errorf("consumer %s: %w", hintConsumer, err)
	}
	q.Hints = &Hints{js: js, consumer: hints}
	q.Logs = &Logs{js: js}
	q.Deliveries = &Deliveries{js: js, log: o.Log}
	return nil
}

// streams are created as plain streams, also the buckets: what NATS would add (roll-ups, by which one message replaces
// all) nobody here needs, and no worker should have.
func (o Options) streams() []jetstream.StreamConfig {
	bucket := func(name string, keep time.Duration) jetstream.StreamConfig {
		return jetstream.StreamConfig{
			Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, MaxAge: keep,
			MaxMsgSize: 1 << 20, Discard: jetstream.DiscardNew, AllowDirect: true, DenyDelete: true, Replicas: max(o.Replicas, 1),
		}
	}
	leases := bucket(leaseBucket, 0)
	leases.AllowMsgTTL, leases.SubjectDeleteMarkerTTL = true, markerTTL
	return []jetstream.StreamConfig{
		bucket(runBucket, o.Keep), bucket(jobBucket, o.Keep), leases,
		{
			Name: deliveryStream, Subjects: []string{deliverySubject + ".>"}, MaxMsgsPerSubject: 1, MaxAge: o.Keep,
			MaxMsgSize: 64 << 10, Discard: jetstream.DiscardNew, DenyDelete: true, AllowDirect: true, Replicas: max(o.Replicas, 1),
		},
		{
			Name: hintStream, Subjects: []string{hintSubject + ".>"}, Retention: jetstream.WorkQueuePolicy, MaxMsgsPerSubject: 1,
			MaxAge: time.Hour, MaxMsgSize: 4 << 10, Replicas: max(o.Replicas, 1),
		},
		o.logStream(),
	}
}

// logStream is not synced to disk with each write: a log is the one thing here that may lose its last moments.
func (o Options) logStream() jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: logStream, Subjects: []string{logSubject + ".>"}, MaxAge: o.KeepLogs, MaxBytes: o.LogBytes, MaxMsgSize: batchBytes + 64<<10,
		Discard: jetstream.DiscardOld, DenyDelete: true, AllowDirect: true, Replicas: max(o.Replicas, 1),
	}
	if c.Replicas == 1 {
		c.PersistMode = jetstream.AsyncPersistMode
	}
	return c
}

func consumers() map[string]jetstream.ConsumerConfig {
	return map[string]jetstream.ConsumerConfig{
		deliveryStream: {Durable: deliveryConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1},
		hintStream:     {Durable: hintConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1},
	}
}

// patiently calls do until it succeeds, and returns its last error when ctx ends.
func patiently(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		if !rest(ctx, 100*time.Millisecond) {
			return errors.Join(err, ctx.Err())
		}
	}
}

// rest waits, and reports false when ctx ended meanwhile.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// token writes s as one token of a subject. What NATS reads as more than a name is written as =HEX.
func token(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	if b.Len() == 0 {
		return "="
	}
	return b.String()
}

// path writes a key of names between slashes as tokens between dots.
func path(key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = token(p)
	}
	return strings.Join(parts, ".")
}

// unpath reads what path wrote.
func unpath(subject string) string {
	var b strings.Builder
	for i := 0; i < len(subject); i++ {
		switch c := subject[i]; {
		case c == '.':
			b.WriteByte('/')
		case c == '=' && i+2 < len(subject):
			var n byte
			if _, err := fmt.Sscanf(subject[i+1:i+3], "%02X", &n); err == nil {
				b.WriteByte(n)
				i += 2
			}
		case c != '=':
			b.WriteByte(c)
		}
	}
	return b.String()
}
