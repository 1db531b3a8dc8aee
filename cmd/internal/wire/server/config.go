package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/slipway-cd/slipway/cmd/internal/wire/githost"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/policy"
)

// Config is the file that says what a server builds, for whom, and with which logins. It holds no secret itself: each
// stands in a file of its own, so that this one can be shown, diffed and kept in Git. Paths are relative to its folder.
type Config struct {
	Environments []EnvironmentRepo `yaml:"environments"`
	Sources      []Source          `yaml:"sources"`
	Registries   []RegistryLogin   `yaml:"registries"`
	Signing      Signing           `yaml:"signing"`
	Queue        Queue             `yaml:"queue"`
	Worker       Worker            `yaml:"worker"`
	// TokensFile lists who may use the API: lines that `slipway-server token` prints.
	TokensFile string `yaml:"tokensFile"`
}

// EnvironmentRepo is where promotions and reverts are written.
type EnvironmentRepo struct {
	URL    string `yaml:"url"`    // spelled as in the GitSources of the agents
	Branch string `yaml:"branch"` // default main
	Login  Login  `yaml:"login"`
	// Host, "gitea", makes pull requests of promotion requests, and says on them what was rolled back. The login is that of
	// the API, too. Without, requests are branches.
	Host string `yaml:"host"`
	// Webhook, at /v1/hooks/NAME, has agents told at once of what was merged; without, the refs are looked at from time to time.
	Name    string   `yaml:"name"`
	Webhook *Webhook `yaml:"webhook"`
}

// Source is a repository whose pushes are built.
type Source struct {
	Name  string `yaml:"name"`
	URL   string `yaml:"url"`
	Login Login  `yaml:"login"`
	// Webhook of the host; without it the refs are looked at from time to time.
	Webhook *Webhook `yaml:"webhook"`
	// Host, "gitea", is told with the login above how its commits do.
	Host string `yaml:"host"`
	// Environments is the URL of the environment repo that images go to; the only one there is may be left out.
	Environments string `yaml:"environments"`
}

// Login at a Git host or registry. Empty means none.
type Login struct {
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"passwordFile"`
}

// Webhook says how the host signs what it sends to /v1/hooks/NAME.
type Webhook struct {
	Kind       string `yaml:"kind"` // github, gitlab, gitea
	SecretFile string `yaml:"secretFile"`
}

// RegistryLogin is how images are pulled from and pushed to one registry.
type RegistryLogin struct {
	Host     string `yaml:"host"` // HOST[:PORT]
	Login    `yaml:",inline"`
	Insecure bool `yaml:"insecure"` // plain HTTP
}

// Signing is the key that images are signed with, in the format of cosign.
type Signing struct {
	KeyFile      string `yaml:"keyFile"`
	PasswordFile string `yaml:"passwordFile"`
}

// Queue is where Runs and Jobs stand. Without a URL this process embeds NATS.
type Queue struct {
	URL    string `yaml:"url"`    // nats://HOST:PORT, for a worker apart or a NATS cluster
	Listen string `yaml:"listen"` // of the embedded one, for workers apart; default: none can come
	// CredentialsFile is written by the server that embeds NATS, and read by workers.
	CredentialsFile string `yaml:"credentialsFile"`
	// Lease is how long a Job waits for another worker when its own has died; default 15s.
	Lease time.Duration `yaml:"lease"`
}

// Worker says how Jobs run in this process.
type Worker struct {
	Name  string `yaml:"name"`  // default: the host's name
	Jobs  int    `yaml:"jobs"`  // at once; 0 for none in this process
	Cache string `yaml:"cache"` // folder for builds and unpacked images, default below --data
	// State is the folder of what runs, on a path that other users may pass; default one below the temporary folder.
	State string `yaml:"state"`
	// Runc is the program that isolates steps; default the one on the PATH, else it is built into Tools.
	Runc  string `yaml:"runc"`
	Tools string `yaml:"tools"` // folder for programs that have to be built, default below Cache
	// AllowUnisolated lets steps run as plain processes where the machine offers no isolation. They can then
	// read what this process can read, the signing key included.
	AllowUnisolated bool `yaml:"allowUnisolated"`
}

// ReadConfig reads and checks a file. All faults are told together.
func ReadConfig(path string) (Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	config, err := parseConfig(content)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	for _, file := range config.files() {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(folder, *file)
		}
	}
	return config, nil
}

func parseConfig(content []byte) (Config, error) {
	var c Config
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, err
	}
	for i := range c.Environments {
		c.Environments[i].Branch = cmp.Or(c.Environments[i].Branch, "main")
	}
	return c, c.check()
}

// files are the paths that the file names.
func (c *Config) files() []*string {
	files := []*string{&c.TokensFile, &c.Signing.KeyFile, &c.Signing.PasswordFile, &c.Queue.CredentialsFile, &c.Worker.Cache, &c.Worker.State, &c.Worker.Tools}
	for i := range c.Environments {
		e := &c.Environments[i]
		files = append(files, &e.Login.PasswordFile)
		if e.Webhook != nil {
			files = append(files, &e.Webhook.SecretFile)
		}
	}
	for i := range c.Sources {
		s := &c.Sources[i]
		files = append(files, &s.Login.PasswordFile)
		if s.Webhook != nil {
			files = append(files, &s.Webhook.SecretFile)
		}
	}
	for i := range c.Registries {
		files = append(files, &c.Registries[i].PasswordFile)
	}
	return files
}

func (c *Config) check() error {
	var all []error
	fault := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	names := map[string]bool{} // which are those of webhooks, too
	name := func(at, name string) {
		if !validName(name) {
			fault("%s.name: %q: want 1 to 63 of a-z, 0-9 and -, as in a DNS label", at, name)
		}
		if names[name] {
			fault("%s.name: %s is there twice", at, name)
		}
		names[name] = true
	}
	environments := map[string]bool{}
	for i, e := range c.Environments {
		at := fmt.Sprintf("environments[%d]", i)
		if err := checkURL(e.URL); err != nil {
			fault("%s.url: %w", at, err)
		}
		if environments[e.URL] {
			fault("%s.url: %s is there twice", at, e.URL)
		}
		environments[e.URL] = true
		if e.Name != "" || e.Webhook != nil {
			name(at, e.Name)
		}
		checkHost(at, e.Host, e.Login, fault)
		e.Webhook.check(at, fault)
	}
	for i, s := range c.Sources {
		at := fmt.Sprintf("sources[%d]", i)
		name(at, s.Name)
		checkHost(at, s.Host, s.Login, fault)
		s.Webhook.check(at, fault)
		if err := checkURL(s.URL); err != nil {
			fault("%s.url: %w", at, err)
		}
		if s.Environments != "" && !environments[s.Environments] {
			fault("%s.environments: %s is not the url of one of the environments", at, s.Environments)
		}
		if s.Environments == "" && len(c.Environments) > 1 {
			fault("%s.environments: there are %d environment repos (name the url of one)", at, len(c.Environments))
		}
	}
	for i, r := range c.Registries {
		if r.Host == "" || strings.Contains(r.Host, "/") {
			fault("registries[%d].host: %q: want HOST or HOST:PORT", i, r.Host)
		}
	}
	if c.Queue.URL != "" && c.Queue.Listen != "" {
		fault("queue: url names a NATS that runs elsewhere, listen the one in this process (leave one out)")
	}
	if (c.Queue.URL != "" || c.Queue.Listen != "") && c.Queue.CredentialsFile == "" {
		fault("queue.credentialsFile: required where the queue can be reached by others")
	}
	if c.Queue.Lease != 0 && (c.Queue.Lease < time.Second || c.Queue.Lease > time.Hour) {
		fault("queue.lease: %s: want 1s to 1h", c.Queue.Lease)
	}
	if c.Worker.Jobs < 0 || c.Worker.Jobs > 256 {
		fault("worker.jobs: %d: want 0 to 256", c.Worker.Jobs)
	}
	return errors.Join(all...)
}

func (w *Webhook) check(at string, fault func(string, ...any)) {
	if w == nil {
		return
	}
	if _, err := forge.ParseKind(w.Kind); err != nil {
		fault("%s.webhook.kind: %q: want github, gitlab or gitea", at, w.Kind)
	}
	if w.SecretFile == "" {
		fault("%s.webhook.secretFile: an unsigned webhook could be sent by anybody (name a file with the secret)", at)
	}
}

func checkHost(at, kind string, login Login, fault func(string, ...any)) {
	if kind == "" {
		return
	}
	if err := githost.CheckKind(kind); err != nil {
		fault("%s.host: %w", at, err)
	}
	if login.Username == "" || login.PasswordFile == "" {
		fault("%s.host: nothing may be written on %s without a login (give login.username, and login.passwordFile with a token of the host's API)", at, kind)
	}
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("want https://HOST/PATH or http://HOST/PATH")
	case u.User != nil:
		return errors.New("holds a login (put the password into a file and name that)")
	}
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > 63 || strings.Trim(name, "-") != name {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) < 0
}

// secret reads a file that holds one; an empty path is an empty Secret.
func secret(path string) (policy.Secret, error) {
	if path == "" {
		return policy.Secret{}, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return policy.Secret{}, err
	}
	text := strings.TrimSpace(string(content))
	if text == "" {
		return policy.Secret{}, fmt.Errorf("%s is empty", path)
	}
	return policy.NewSecret(text), nil
}
