package githost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/gitea"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/policy"
)

const (
	atMost     = 6 * time.Minute
	hookSecret = "what the hooks are signed with"
	loginName  = "fleet-login" // Secret that the agent reads Git with
)

// quay is a world whose repositories live on a Gitea. Server, worker and agent are processes of their own.
type quay struct {
	testing.TB
	*world.World
	host              *gitea.Host
	robin, kim        gitea.User // who write and review
	slipway, reader   gitea.User // what the server and the agent are to the host
	fleetRepo, shop   gitea.Repository
	source            *world.Repository // clone of shop
	build             world.Build
	server            *world.Server
	command, userHome string
}

func newQuay(t *testing.T) *quay {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-githost-")
	if err != nil {
		t.Fatal(err)
	}
	q := &quay{TB: t, userHome: filepath.Join(dir, "home")}
	q.host, err = gitea.Start(t.Context(), gitea.Options{Dir: filepath.Join(dir, "gitea"), Log: t.Output()})
	q.must(err)
	t.Cleanup(q.host.Kill)
	q.World, err = world.Start(t.Context(), world.Options{Dir: dir, Node: cluster.NodeKwok, Log: t.Output()})
	q.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			q.tell()
		}
		if err := q.Stop(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	q.people()
	q.repositories()
	q.processes()
	return q
}

func (q *quay) must(err error) {
	q.Helper()
	if err != nil {
		q.Fatal(err)
	}
}

// tell shows what the server and the cluster said last.
func (q *quay) tell() {
	if q.server != nil {
		content, _ := os.ReadFile(q.server.Log)
		q.Logf("the server:\n%s", content[max(0, len(content)-8000):])
	}
	// The test's own context has ended by now.
	out, err := q.Cluster.Kubectl(context.Background(), "get", "applications.slipway.dev,rollouts.slipway.dev", "-A")
	q.Logf("%s%v", out, err)
}

func (q *quay) people() {
	for name, into := range map[string]*gitea.User{"robin": &q.robin, "kim": &q.kim, "slipway": &q.slipway, "reader": &q.reader} {
		var err error
		*into, err = q.host.User(q.Context(), name)
		q.must(err)
	}
	q.must(q.host.Org(q.Context(), "port"))
}

// repositories makes both, private, and pushes what they begin with. From then on main of the environment repo is protected.
func (q *quay) repositories() {
	ctx := q.Context()
	var err error
	q.fleetRepo, err = q.host.Repository(ctx, "port", "fleet", q.robin, q.kim, q.slipway)
	q.must(err)
	q.must(q.host.Call(ctx, q.host.Admin, http.MethodPut, "repos/"+q.fleetRepo.Name+"/collaborators/"+q.reader.Name, map[string]any{"permission": "read"}, nil))
	q.shop, err = q.host.Repository(ctx, "port", "shop", q.robin, q.slipway)
	q.must(err)
	fleet, err := q.Clone(ctx, "fleet", q.fleetRepo.URL, auth(q.robin))
	q.must(err)
	q.Follow(fleet, loginName)
	q.source, err = q.Clone(ctx, "shop", q.shop.URL, auth(q.robin))
	q.must(err)

	q.build, err = q.NewBuild(ctx, q.buildOptions())
	q.must(err)
	image, err := q.Sample(ctx, "0", "ready")
	q.must(err)
	files, err := world.Fleet(ctx, image)
	q.must(err)
	key, enrol, err := q.AgentKey(ctx)
	q.must(err)
	q.Logf("the agent's key is %s", filepath.Base(key))
	_, err = q.Commit(ctx, "Start the fleet", append(files, enrol, q.Policy(q.build, q.source))...)
	q.must(err)
	q.must(q.host.Protect(ctx, q.fleetRepo, gitea.Protection{Branch: world.Branch, Pushers: []string{q.slipway.Name}, Approvals: 1}))
}

func auth(u gitea.User) *gogit.Auth {
	return &gogit.Auth{Username: u.Name, Password: policy.NewSecret(u.Token)}
}

// buildOptions join the server to the host: pull requests and statuses by its API, pushes by webhooks.
func (q *quay) buildOptions() world.BuildOptions {
	secrets := map[string]string{"hook": hookSecret, "server-token": q.slipway.Token}
	for name, content := range secrets {
		secrets[name] = filepath.Join(q.Dir, name)
		q.must(os.WriteFile(secrets[name], []byte(content), 0o600))
	}
	entry := func(name string, r gitea.Repository) map[string]any {
		return map[string]any{
			"name": name, "url": r.URL, "host": "gitea",
			"login":   map[string]any{"username": q.slipway.Name, "passwordFile": secrets["server-token"]},
			"webhook": map[string]any{"kind": "gitea", "secretFile": secrets["hook"]},
		}
	}
	return world.BuildOptions{QueueListen: q.freeAddress(), Environments: entry("fleet", q.fleetRepo), Sources: []map[string]any{entry("shop", q.shop)}}
}

func (q *quay) freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	q.must(err)
	q.must(l.Close())
	return l.Addr().String()
}

// processes start the agent, the server and a worker, none of them in another, and have the host tell the server of pushes.
func (q *quay) processes() {
	ctx := q.Context()
	q.must(q.Install(ctx))
	q.must(q.Kube.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: loginName},
		StringData: map[string]string{"username": q.reader.Name, "password": q.reader.Token},
	}))
	var err error
	// Looking at refs is off, so that only webhooks can be what is quick.
	q.server, err = q.StartServer(ctx, world.ServerOptions{Config: q.build.Config, Args: []string{"--poll", "1h"}})
	q.must(err)
	_, err = q.StartWorker(ctx, q.build, "worker", "")
	q.must(err)
	_, err = q.StartAgent(ctx, world.AgentOptions{Args: []string{"--server", q.server.URL, "--server-ca", q.server.Trust, "--key", filepath.Join(q.Dir, "keys", "agent.pem")}})
	q.must(err)
	for name, r := range map[string]gitea.Repository{"fleet": q.fleetRepo, "shop": q.shop} {
		q.must(q.host.Hook(ctx, r, q.server.URL+"/v1/hooks/"+name, hookSecret))
	}
	q.command, err = q.Binary(ctx, "slipway")
	q.must(err)
}

// run runs the command line as a person does, and returns what it prints and its exit code.
func (q *quay) run(as gitea.User, args ...string) (out string, code int) {
	q.Helper()
	cmd := exec.CommandContext(q.Context(), q.command, args...)
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+q.Cluster.Kubeconfig(), "SLIPWAY_REPO="+q.fleetRepo.URL, "SLIPWAY_HOST=gitea", "NO_COLOR=1", "XDG_CACHE_HOME="+filepath.Join(q.userHome, as.Name),
		"SLIPWAY_GIT_USERNAME="+as.Name, "SLIPWAY_GIT_PASSWORD="+as.Token, "GIT_AUTHOR_NAME="+as.Name, "GIT_AUTHOR_EMAIL="+as.Email,
		"SLIPWAY_SERVER="+q.server.URL, "SLIPWAY_SERVER_CA="+q.server.Trust)
	all, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		q.Fatal(err)
	}
	q.Logf("%s$ slipway %s\n%s", as.Name, strings.Join(args, " "), all)
	if strings.Contains(string(all), as.Token) {
		q.Fatal("a token is printed")
	}
	return string(all), cmd.ProcessState.ExitCode()
}

// eventually waits for what others do.
func (q *quay) eventually(f func() error) {
	q.Helper()
	q.must(world.Eventually(q.Context(), atMost, f))
}

// toDev waits until what was built from a commit is promoted to dev and runs there.
func (q *quay) toDev(source gitsource.ObjectID) (image string) {
	q.Helper()
	var promotion gitsource.ObjectID
	q.eventually(func() error {
		commits, err := q.World.Log(q.Context(), 30)
		if err != nil {
			return err
		}
		for _, commit := range commits {
			for _, c := range trailer.Parse(commit.Message).Changes {
				if c.Environment == "dev" && strings.HasSuffix(c.Source, "@"+string(source)) {
					image, promotion = c.Image, commit.ID
					return nil
				}
			}
		}
		return fmt.Errorf("nothing is promoted that was built from %s", source.Short())
	})
	q.arrives("shop-dev", promotion, image)
	return image
}

func (q *quay) arrives(app string, commit gitsource.ObjectID, image string) {
	q.Helper()
	q.eventually(func() error {
		return errors.Join(q.Deployment(q.Context(), app, "shop", image), q.Ready(q.Context(), app, commit))
	})
}
