package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/oci"
	"github.com/slipway-cd/slipway/builder/queue"
	"github.com/slipway-cd/slipway/builder/run"
	"github.com/slipway-cd/slipway/builder/sandbox"
	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/policy"
)

// WorkerOptions say how a worker runs apart from the server.
type WorkerOptions struct {
	Config  Config
	Name    string // default that of the configuration, else the host's
	Data    string // stores and workspaces; may be lost at any time
	Metrics prometheus.Registerer
	Log     logr.Logger
}

// RunWorker executes Jobs of the queue that the configuration names, until ctx ends.
func RunWorker(ctx context.Context, o WorkerOptions) error {
	if o.Config.Queue.URL == "" {
		return fmt.Errorf("worker: %w", errNoQueue)
	}
	o.Config.Worker.Name = cmp.Or(o.Name, o.Config.Worker.Name)
	login, err := readLogin(o.Config.Queue)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	var sources []Repository
	for _, s := range o.Config.Sources {
		r, err := s.repository()
		if err != nil {
			return fmt.Errorf("worker: %w", err)
		}
		sources = append(sources, r)
	}
	connection, err := queue.Connect(ctx, queue.Options{Login: login, Worker: true, Name: "slipway-worker", Log: o.Log})
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	defer connection.Close()
	tools, worker, err := newWorker(ctx, workerParts{
		config: o.Config, queue: connection, source: newStores(o.Data, configured(sources)), data: o.Data, metrics: o.Metrics, log: o.Log,
	})
	if err != nil {
		return err
	}
	defer tools.close()
	o.Log.Info("working", "name", o.Config.Worker.Name, "jobs", o.Config.Worker.Jobs)
	return worker.Serve(ctx)
}

type workerParts struct {
	config  Config
	queue   *queue.Queue
	source  *stores
	data    string
	metrics prometheus.Registerer
	log     logr.Logger
}

// tools are what a worker keeps open.
type tools struct{ sandbox *sandbox.Sandbox }

func (t *tools) close() { _ = t.sandbox.Close() } // it only gives a lock free

func newWorker(ctx context.Context, p workerParts) (*tools, *run.Worker, error) {
	name := cmp.Or(p.config.Worker.Name, hostName())
	var err error
	if p.data, err = filepath.Abs(p.data); err != nil { // mounts and the go command take nothing else
		return nil, nil, err
	}
	cache := cmp.Or(p.config.Worker.Cache, filepath.Join(p.data, "cache"))
	registry, secrets, err := newRegistry(p.config, cache, p.log)
	if err != nil {
		return nil, nil, err
	}
	box, err := sandbox.New(ctx, sandbox.Options{
		Runc: p.config.Worker.Runc, Cache: cmp.Or(p.config.Worker.Tools, filepath.Join(cache, "tools")), State: cmp.Or(p.config.Worker.State, stateOf(p.data)),
		AllowUnisolated: p.config.Worker.AllowUnisolated, Log: p.log,
	})
	if err != nil {
		return nil, nil, err
	}
	worker, err := run.NewWorker(run.WorkerOptions{
		Name: name, Queue: workerQueue(p.queue), Source: p.source, Sandbox: isolated{box}, Images: images{registry},
		Dir: filepath.Join(p.data, "work"), Slots: max(1, p.config.Worker.Jobs), Lease: p.config.Queue.Lease, Secrets: secrets,
		Mounts: func(r builder.Run) []run.Mount { return caches(registry, r, p.log) },
		Now:    time.Now, Log: p.log, Metrics: p.metrics, Failpoint: wire.Failpoint,
	})
	if err != nil {
		return nil, nil, errors.Join(err, box.Close())
	}
	return &tools{sandbox: box}, worker, nil
}

// stateOf is the folder of what runs for a worker with the given data: the same after a restart, so that what was left is
// ended, and below the temporary folder, where other users may pass.
func stateOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return filepath.Join(os.TempDir(), "slipway-sandbox-"+hex.EncodeToString(sum[:6]))
}

// newRegistry also returns the passwords, which must not be seen in logs.
func newRegistry(c Config, cache string, log logr.Logger) (*oci.Registry, []policy.Secret, error) {
	options := oci.Options{Cache: cache, Logins: map[string]oci.Login{}, Log: slog.New(logr.ToSlogHandler(log))}
	var secrets []policy.Secret
	for _, r := range c.Registries {
		password, err := secret(r.PasswordFile)
		if err != nil {
			return nil, nil, fmt.Errorf("registry %s: %w", r.Host, err)
		}
		if r.Username != "" || !password.Empty() {
			options.Logins[r.Host] = oci.Login{Username: r.Username, Password: password}
			secrets = append(secrets, password)
		}
		if r.Insecure {
			options.Insecure = append(options.Insecure, r.Host)
		}
	}
	options.Toolchain.Proxy, options.Toolchain.NoSumDB = os.Getenv("GOPROXY"), os.Getenv("GONOSUMDB")
	registry, err := oci.New(options)
	return registry, secrets, err
}

// caches are shared by the Runs of one branch of one repository: whoever can push there decides what the others produce anyway.
func caches(registry *oci.Registry, r builder.Run, log logr.Logger) []run.Mount {
	found, err := registry.Caches(r.Repo.URL + " " + r.Revision.Ref)
	if err != nil {
		log.Info("no build cache", "run", r.ID, "cause", err.Error())
		return nil
	}
	var mounts []run.Mount
	for _, m := range found {
		mounts = append(mounts, run.Mount(m))
	}
	return mounts
}

// repository is how a source is reached.
func (s Source) repository() (Repository, error) {
	password, err := secret(s.Login.PasswordFile)
	if err != nil {
		return Repository{}, fmt.Errorf("source %s: %w", s.Name, err)
	}
	return Repository{URL: s.URL, Host: s.Host, Username: s.Login.Username, Password: password}, nil
}

// Repository is how an environment repository is reached.
func (e EnvironmentRepo) Repository() (Repository, error) {
	password, err := secret(e.Login.PasswordFile)
	if err != nil {
		return Repository{}, fmt.Errorf("environment repository %s: %w", e.URL, err)
	}
	return Repository{URL: e.URL, Branch: e.Branch, Host: e.Host, Username: e.Login.Username, Password: password}, nil
}

// storedLogin is what a worker needs to reach the queue, as it stands in a file.
type storedLogin struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

func writeLogin(file string, login queue.Login) error {
	content, err := json.Marshal(storedLogin{login.User, login.Password.Reveal()})
	if err != nil {
		return fmt.Errorf("credentials of the queue: %w", err)
	}
	// Renamed into place: a worker that starts meanwhile must not read half of it.
	unfinished := file + ".part"
	if err := os.WriteFile(unfinished, content, 0o600); err != nil {
		return fmt.Errorf("credentials of the queue: %w", err)
	}
	if err := os.Rename(unfinished, file); err != nil {
		return fmt.Errorf("credentials of the queue: %w", err)
	}
	return nil
}

func readLogin(q Queue) (queue.Login, error) {
	content, err := os.ReadFile(q.CredentialsFile)
	if err != nil {
		return queue.Login{}, fmt.Errorf("credentials of the queue: %w (the server writes them when it starts)", err)
	}
	var stored storedLogin
	if err := json.Unmarshal(content, &stored); err != nil || stored.User == "" {
		return queue.Login{}, fmt.Errorf("credentials of the queue: %s does not hold any", q.CredentialsFile)
	}
	return queue.Login{URL: q.URL, User: stored.User, Password: policy.NewSecret(stored.Password)}, nil
}
