package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/slipway-cd/slipway/policy"
)

// ServerOptions says how the embedded server runs.
type ServerOptions struct {
	// StoreDir holds the streams and the passwords; one process at a time may use it.
	StoreDir string
	// Listen is the loopback address for workers in other processes, "127.0.0.1:0" if empty.
	Listen string
	// Log gets what the server complains about; its chatter is left out.
	Log logr.Logger
}

// Login is what a program needs to reach a queue from another process.
type Login struct {
	URL      string // without credentials
	User     string
	Password policy.Secret
}

// Server is an embedded JetStream server: each write is on disk before it is answered.
type Server struct {
	server *server.Server
	admin  Login
	worker Login
	unlock func()
}

// The accounts of the embedded server: the server's own, and that of all workers.
const (
	adminUser  = "slipway-server"
	workerUser = "slipway-worker"
)

const startPatience = 30 * time.Second // until a server with a large store listens

// Serve starts a server and returns when it can be used.
func Serve(o ServerOptions) (*Server, error) {
	if o.StoreDir == "" {
		return nil, errors.New("queue: no folder to store in")
	}
	host, port, err := loopback(o.Listen)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	unlock, err := lock(o.StoreDir)
	if err != nil {
		return nil, err
	}
	s, err := serve(o, host, port)
	if err != nil {
		unlock()
		return nil, err
	}
	s.unlock = unlock
	return s, nil
}

func serve(o ServerOptions, host string, port int) (*Server, error) {
	admin, err := password(filepath.Join(o.StoreDir, "server.password"))
	if err != nil {
		return nil, err
	}
	worker, err := password(filepath.Join(o.StoreDir, "worker.password"))
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "slipway", Host: host, Port: port, StoreDir: filepath.Join(o.StoreDir, "jetstream"),
		JetStream: true, SyncAlways: true, DontListen: false, NoSigs: true,
		MaxPayload: 4 << 20, WriteDeadline: 10 * time.Second,
		Users: []*server.User{
			{Username: adminUser, Password: admin.Reveal()},
			{Username: workerUser, Password: worker.Reveal(), Permissions: workerPermissions()},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	failed := make(chan string, 1)
	s.SetLoggerV2(complaints{o.Log, failed}, false, false, false)
	s.Start()
	if err := ready(s, failed); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("queue: no server on %s with its store in %s: %w", net.JoinHostPort(host, strconv.Itoa(port)), o.StoreDir, err)
	}
	at := (&url.URL{Scheme: "nats", Host: s.Addr().String()}).String()
	return &Server{
		server: s,
		admin:  Login{URL: at, User: adminUser, Password: admin},
		worker: Login{URL: at, User: workerUser, Password: worker},
	}, nil
}

// Worker returns the login for workers in other processes. It reaches no more than a worker needs.
func (s *Server) Worker() Login { return s.worker }

// Admin returns the login of the server itself, for a second server process on the same machine.
func (s *Server) Admin() Login { return s.admin }

// Close stops the server. What it has acknowledged stays on disk.
func (s *Server) Close() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
	s.unlock()
}

// lock keeps a second process out of the folder: two servers on one store destroy it. The kernel lets go of the lock when
// its process dies, however it dies; a process that is just ending gets a moment.
func lock(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err = patiently(ctx, func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("queue: the store in %s is in use by another process", dir), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// loopback splits address and refuses what other machines could reach.
func loopback(address string) (host string, port int, err error) {
	if address == "" {
		return "127.0.0.1", server.RANDOM_PORT, nil
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("queue: listen address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", 0, fmt.Errorf("queue: listen address %q is not one of loopback: for workers on other machines run NATS yourself and give its URL", address)
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("queue: listen address %q: %q is no port", address, text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// password reads the password in the file, which it makes at the first start: workers keep theirs over restarts.
func password(file string) (policy.Secret, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		b = []byte(rand.Text() + rand.Text())
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		return policy.Secret{}, fmt.Errorf("queue: password: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if len(text) < 32 {
		return policy.Secret{}, fmt.Errorf("queue: password in %s is shorter than 32 characters: remove the file to have another one made", file)
	}
	return policy.NewSecret(text), nil
}

// workerPermissions are what a worker does with the queue: take hints, read Runs, change Jobs and leases, write logs. It
// can neither read nor write deliveries, change a Run, read a log, or change how anything is kept.
func workerPermissions() *server.Permissions {
	publish := []string{
		"$JS.API.CONSUMER.INFO." + hintStream + "." + hintConsumer,
		"$JS.API.CONSUMER.MSG.NEXT." + hintStream + "." + hintConsumer,
		"$JS.ACK." + hintStream + "." + hintConsumer + ".>",
		"$KV." + jobBucket + ".>",
		"$KV." + leaseBucket + ".>",
		logSubject + ".>",
	}
	for _, bucket := range []string{runBucket, jobBucket, leaseBucket} {
		publish = append(publish, "$JS.API.DIRECT.GET.KV_"+bucket+".$KV."+bucket+".>")
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: []string{workerInbox + ".>"}},
	}
}

// ready waits until the server can be used, or has said why it never will be.
func ready(s *server.Server, failed <-chan string) error {
	for deadline := time.Now().Add(startPatience); ; {
		if s.ReadyForConnections(50*time.Millisecond) && s.JetStreamEnabled() {
			return nil
		}
		select {
		case why := <-failed:
			return errors.New(why)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it is not ready after %s", startPatience)
		}
	}
}

// complaints hands warnings and errors of the server on. They may name subjects, never contents.
type complaints struct {
	log    logr.Logger
	failed chan<- string // gets the first error that ends the server
}

func (c complaints) Noticef(string, ...any) {}
func (c complaints) Debugf(string, ...any)  {}
func (c complaints) Tracef(string, ...any)  {}

func (c complaints) Warnf(format string, v ...any) {
	c.log.Info("queue server warns", "warning", fmt.Sprintf(format, v...))
}

func (c complaints) Errorf(format string, v ...any) {
	c.log.Info("queue server failed", "failure", fmt.Sprintf(format, v...))
}

// Fatalf does not end the process, as the server's own logger would.
func (c complaints) Fatalf(format string, v ...any) {
	c.Errorf(format, v...)
	select {
	case c.failed <- fmt.Sprintf(format, v...):
	default:
	}
}
