package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/queue"
	"github.com/slipway-cd/slipway/builder/run"
	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/webhook"
	"github.com/slipway-cd/slipway/promoter"
)

// Build is the half of a server that makes images.
type Build struct {
	Config Config
	// Local, if set, admits repositories beside Config.Sources, by their URL: those of a Git host in this process.
	Local func(url string) (builder.Repo, bool)
}

// building is the build half, ready to run.
type building struct {
	config   Config
	embedded *queue.Server // nil for a NATS elsewhere
	queue    *queue.Queue
	stores   *stores
	loop     *run.Loop
	worker   *run.Worker // nil for none in this process
	tools    *tools      // of the worker
	batches  map[string]*promoter.Batch
	every    time.Duration
	log      logr.Logger
}

// newBuilding opens the queue and what the loop works with. writers are the promoters by the URL of their environment repo.
func newBuilding(ctx context.Context, o Options, writers map[string]*promoter.Promoter, s *stores, sources sourceHosts) (_ *building, err error) {
	b := &building{config: o.Build.Config, stores: s, batches: map[string]*promoter.Batch{}, every: o.Poll, log: o.Log.WithName("build")}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if err := b.connect(ctx, filepath.Join(o.Data, "queue")); err != nil {
		return nil, err
	}
	for url, writer := range writers {
		b.batches[url] = promoter.NewBatch(writer.WriteBack, promoter.BatchOptions{})
	}
	options := run.Options{
		Name: "server", Queue: loopQueue(b.queue), Source: s, Promoter: writeBack{b.batch}, Lease: b.config.Queue.Lease, Now: time.Now, Log: b.log, Metrics: o.Registry, Failpoint: wire.Failpoint,
	}
	signs, err := newAttestor(b.config)
	if err != nil {
		return nil, err
	}
	if signs != nil {
		options.Attestor = signs
	}
	if len(sources) > 0 {
		options.Statuses = sources
	}
	if b.loop, err = run.NewLoop(options); err != nil {
		return nil, err
	}
	if b.config.Worker.Jobs > 0 {
		b.tools, b.worker, err = newWorker(ctx, workerParts{
			config: b.config, queue: b.queue, source: s, data: o.Data, metrics: o.Registry, log: b.log.WithName("worker"),
		})
	}
	return b, err
}

// connect embeds a NATS or connects to the one that is named.
func (b *building) connect(ctx context.Context, dir string) (err error) {
	options := queue.Options{Name: "slipway-server", Log: b.log}
	if q := b.config.Queue; q.URL != "" {
		if options.Login, err = readLogin(q); err != nil {
			return err
		}
	} else {
		if b.embedded, err = queue.Serve(queue.ServerOptions{StoreDir: dir, Listen: q.Listen, Log: b.log}); err != nil {
			return err
		}
		options.Server = b.embedded
		if q.CredentialsFile != "" {
			if err := writeLogin(q.CredentialsFile, b.embedded.Worker()); err != nil {
				return err
			}
		}
	}
	b.queue, err = queue.Connect(ctx, options)
	return err
}

// batch returns the Batch of the environment repo that images of a source go to.
func (b *building) batch(source builder.Repo) (*promoter.Batch, bool) {
	url := ""
	for _, s := range b.config.Sources {
		if s.URL == source.URL {
			url = s.Environments
		}
	}
	if url == "" && len(b.batches) == 1 {
		for only := range b.batches {
			url = only
		}
	}
	batch, found := b.batches[url]
	return batch, found
}

// pushed stores that a branch of a source has moved.
func (b *building) pushed(ctx context.Context, repo builder.Repo, ref string, commit gitsource.ObjectID, actor string) error {
	return b.loop.Deliver(ctx, builder.Delivery{
		ID: "seen", Repo: repo, Revision: gitsource.Revision{URL: repo.URL, Ref: ref, ID: commit}, Actor: actor, ReceivedAt: time.Now(),
	})
}

// of is the webhook of one repository.
func (w *Webhook) of(name, url string) (webhook.Hook, error) {
	kind, err := forge.ParseKind(w.Kind)
	if err != nil {
		return webhook.Hook{}, fmt.Errorf("webhook: %w", err)
	}
	signed, err := secret(w.SecretFile)
	if err != nil {
		return webhook.Hook{}, fmt.Errorf("webhook: %w", err)
	}
	return webhook.Hook{Name: name, Kind: kind, Secret: signed, CloneURL: url}, nil
}

// hooks takes the webhooks of the repositories that have one, nil if none has: those of sources start Runs, those of
// environment repos only tell who waits for them.
func (b *building) hooks(hub *console.Hub) (http.Handler, error) {
	options := webhook.Options{Log: b.log.WithName("webhook")}
	repos := map[string]builder.Repo{}
	for _, s := range b.config.Sources {
		if s.Webhook == nil {
			continue
		}
		hook, err := s.Webhook.of(s.Name, s.URL)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Name, err)
		}
		options.Hooks = append(options.Hooks, hook)
		repos[s.Name] = builder.Repo{Name: s.Name, URL: s.URL}
	}
	environments := map[string]string{}
	for _, e := range b.config.Environments {
		if e.Webhook == nil {
			continue
		}
		hook, err := e.Webhook.of(e.Name, e.URL)
		if err != nil {
			return nil, fmt.Errorf("environment repository %s: %w", e.Name, err)
		}
		options.Hooks = append(options.Hooks, hook)
		environments[e.Name] = e.URL
	}
	if len(options.Hooks) == 0 {
		return nil, nil
	}
	options.Accept = func(ctx context.Context, push forge.Push) error {
		if url, found := environments[push.Hook]; found {
			hub.Publish(console.Nudge{URL: url, Ref: push.Ref})
			return nil
		}
		repo := repos[push.Hook]
		return b.loop.Deliver(ctx, builder.Delivery{
			// What the host calls a message is not signed; the digest of what is signed tells a replay.
			ID: push.Digest, Repo: repo, Revision: gitsource.Revision{URL: repo.URL, Ref: push.Ref, ID: push.After}, Actor: push.Pusher, ReceivedAt: time.Now(),
		})
	}
	return webhook.New(options)
}

// runs are what has to run for the build half.
func (b *building) runs() []func(context.Context) error {
	all := []func(context.Context) error{b.loop.Serve}
	if b.worker != nil {
		all = append(all, b.worker.Serve)
	}
	for _, batch := range b.batches {
		all = append(all, func(ctx context.Context) error {
			batch.Run(ctx)
			return nil
		})
	}
	for _, s := range b.config.Sources {
		if s.Webhook == nil && b.every > 0 {
			all = append(all, func(ctx context.Context) error {
				b.look(ctx, builder.Repo{Name: s.Name, URL: s.URL})
				return nil
			})
		}
	}
	return all
}

// look delivers what moves in a source whose host tells nobody. What was delivered before is known, also after a restart.
func (b *building) look(ctx context.Context, repo builder.Repo) {
	seen := map[string]gitsource.ObjectID{}
	tick := time.NewTicker(b.every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := b.lookOnce(ctx, repo, seen); err != nil && ctx.Err() == nil {
			b.log.Info("a source cannot be looked at", "repository", repo.URL, "cause", err.Error())
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (b *building) lookOnce(ctx context.Context, repo builder.Repo, seen map[string]gitsource.ObjectID) error {
	store, err := b.stores.store(ctx, repo.URL)
	if err != nil {
		return err
	}
	refs, err := store.Refs(ctx)
	if err != nil {
		return err
	}
	for ref, id := range refs {
		if !strings.HasPrefix(ref, "refs/heads/") || seen[ref] == id {
			continue
		}
		if err := b.pushed(ctx, repo, ref, id, ""); err != nil {
			return err
		}
		seen[ref] = id
	}
	return nil
}

// close ends what New has begun.
func (b *building) close() {
	if b.tools != nil {
		b.tools.close()
	}
	if b.queue != nil {
		b.queue.Close()
	}
	if b.embedded != nil {
		b.embedded.Close()
	}
}

// hostName names a worker where its configuration does not.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "worker"
	}
	return cmp.Or(strings.Map(func(r rune) rune {
		if r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, strings.ToLower(name)), "worker")
}

var errNoQueue = errors.New("queue.url is missing (the server that embeds NATS listens where its queue.listen says)")
