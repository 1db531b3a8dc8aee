package world

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// BuildOptions say what a server builds.
type BuildOptions struct {
	Sources []map[string]any // entries of `sources` in the server's configuration, besides the logins
	// Environments, if set, takes the place of the environment repo on the World's own host.
	Environments map[string]any
	Jobs         int           // at once in the server's process; 0 for workers apart
	QueueListen  string        // loopback address for workers apart; empty for none
	Lease        time.Duration // default 2 s
}

// Build is the configuration of a server that builds, and what belongs to it.
type Build struct {
	Config      string // of the server
	Worker      string // configuration of a worker apart; it names no signing key
	PublicKey   string // PEM, of what the server signs
	PrivateKey  string // file with the key that it signs with
	Credentials string // file of the queue, which the server writes
}

// password protects the signing key of every World.
const password = "of the world's signing key"

// NewBuild makes a signing key and writes the configurations.
func (w *World) NewBuild(_ context.Context, o BuildOptions) (Build, error) {
	dir, err := w.folder("build")
	if err != nil {
		return Build{}, err
	}
	private, public, err := sigstore.GenerateKey(policy.NewSecret(password))
	if err != nil {
		return Build{}, fmt.Errorf("signing key: %w", err)
	}
	b := Build{
		Config: filepath.Join(dir, "server.yaml"), Worker: filepath.Join(dir, "worker.yaml"), PublicKey: string(public),
		PrivateKey: filepath.Join(dir, "cosign.key"), Credentials: filepath.Join(dir, "queue.json"),
	}
	login := map[string]any{"username": "slipway", "passwordFile": filepath.Join(dir, "git-token")}
	for name, content := range map[string]string{
		b.PrivateKey: private.Reveal(), filepath.Join(dir, "cosign.password"): password, filepath.Join(dir, "git-token"): "the server's token",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return Build{}, err
		}
	}
	environments := o.Environments
	if environments == nil {
		environments = map[string]any{"url": w.URL, "branch": Branch, "login": login}
	}
	tools, err := os.UserCacheDir() // what has to be built there is built once
	if err != nil {
		return Build{}, err
	}
	tools = filepath.Join(tools, "slipway", "sandbox")
	common := map[string]any{
		"environments": []any{environments},
		"sources":      o.Sources,
		"registries":   []any{map[string]any{"host": w.Registry.Host(), "insecure": true}},
	}
	server := map[string]any{
		"signing": map[string]any{"keyFile": b.PrivateKey, "passwordFile": filepath.Join(dir, "cosign.password")},
		"worker":  map[string]any{"jobs": o.Jobs, "cache": filepath.Join(dir, "cache"), "tools": tools},
	}
	if o.Lease == 0 {
		o.Lease = 2 * time.Second // tests that kill workers have not much time
	}
	server["queue"] = map[string]any{"lease": o.Lease.String()}
	worker := map[string]any{"worker": map[string]any{"jobs": 2, "cache": filepath.Join(dir, "cache"), "tools": tools}}
	if o.QueueListen != "" {
		server["queue"] = map[string]any{"listen": o.QueueListen, "credentialsFile": b.Credentials, "lease": o.Lease.String()}
		worker["queue"] = map[string]any{"url": "nats://" + o.QueueListen, "credentialsFile": b.Credentials, "lease": o.Lease.String()}
	}
	for key, value := range common {
		server[key], worker[key] = value, value
	}
	for name, content := range map[string]any{b.Config: server, b.Worker: worker} {
		text, err := yaml.Marshal(content)
		if err != nil {
			return Build{}, err
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return Build{}, err
		}
	}
	return b, nil
}

// SourceOf is the entry of a repository on the World's own host in the server's configuration.
func SourceOf(name string, r *Repository) map[string]any {
	return map[string]any{"name": name, "url": r.URL}
}

// StartWorker starts a worker apart from the server.
func (w *World) StartWorker(ctx context.Context, b Build, name, failpoint string) (*Process, error) {
	var tags, env []string
	if failpoint != "" {
		tags, env = []string{"failpoints"}, []string{"SLIPWAY_FAILPOINT=" + failpoint}
	}
	binary, err := w.Binary(ctx, "slipway-server", tags...)
	if err != nil {
		return nil, err
	}
	return w.Run(name, binary, []string{"worker", "--config", b.Worker, "--name", name, "--data", name}, env)
}

// Policy is the ImagePolicy that lets images of the sample's own pipeline run only if this server has signed them.
func (w *World) Policy(b Build, source *Repository) gitsource.Change {
	return Write("clusters/"+ClusterName+"/images.yaml", `apiVersion: slipway.dev/v1alpha1
kind: ImagePolicy
metadata: {name: built-here, namespace: `+Namespace+`}
spec:
  images: [`+quoted(w.Registry.Host()+"/apps/**")+`]
  keys:
    - {name: server, pem: `+quoted(b.PublicKey)+`}
  requireProvenance:
    sources: [`+quoted(source.URL)+`]
`)
}

// quoted is text as a YAML scalar on one line.
func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		return "" // cannot happen: text is a string
	}
	return string(b)
}
