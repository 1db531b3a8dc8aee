package install

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Options say which cluster follows which repository.
type Options struct {
	Cluster   string // name of the cluster; also that of its root Application
	URL       string // of the environment repo: http or https, without credentials
	Branch    string // default main
	Path      string // of what the agent starts from; default clusters/CLUSTER
	Namespace string // of the Applications; default slipway-system
	// SecretName is a Secret with username and password for the repository; empty for none.
	SecretName string
	// AgentUser is the API server's name for an agent that runs outside of the cluster; empty for none.
	AgentUser string
	// AgentImage runs the agent in the cluster; empty for an agent outside.
	AgentImage string
	// Replicas of the agent in the cluster, of which one works; default 2.
	Replicas int
	// Server is the URL of slipway-server for the agent in the cluster; empty for one that
	// pushes reverts itself. The agent's key is then in the Secret slipway-agent-key, as key.pem.
	Server string
	// Prometheus is the URL of the server that Rollouts measure with, for the agent in the cluster; empty for none.
	Prometheus string
}

// complete fills in what is not set, and names every fault.
func (o Options) complete() (Options, error) {
	o.Branch = cmp.Or(o.Branch, "main")
	o.Namespace = cmp.Or(o.Namespace, "slipway-system")
	o.Replicas = cmp.Or(o.Replicas, 2)
	o.Path = cmp.Or(o.Path, path.Join("clusters", o.Cluster))
	return o, errors.Join(
		fault("cluster", o.Cluster, validation.IsDNS1123Label(o.Cluster)...),
		checkURL("url", o.URL, "https://HOST/PATH of the environment repo"),
		checkBranch(o.Branch),
		checkPath(o.Path),
		fault("namespace", o.Namespace, validation.IsDNS1123Label(o.Namespace)...),
		o.checkSecret(),
		checkUser(o.AgentUser),
		checkWord("agent image", o.AgentImage),
		o.checkReplicas(),
		o.checkServer(),
		o.checkPrometheus(),
	)
}

// fault returns the first of problems.
func fault(field, value string, problems ...string) error {
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s %q: %s", field, value, problems[0])
}

func checkURL(field, given, want string) error {
	parsed, err := url.Parse(given)
	switch {
	case err != nil, parsed.Host == "", parsed.Scheme != "http" && parsed.Scheme != "https":
		return fmt.Errorf("%s: want %s", field, want) // not quoted: what is wrong may be a password
	case parsed.User != nil, strings.Contains(given, "@"):
		return fmt.Errorf("%s: has credentials or an @ in it; put credentials into a Secret and name it", field)
	}
	return checkWord(field, given)
}

// checkBranch has the rules of git check-ref-format that matter to people.
func checkBranch(branch string) error {
	if strings.HasPrefix(branch, "-") || strings.HasPrefix(branch, "/") || strings.HasSuffix(branch, "/") || strings.HasSuffix(branch, ".lock") ||
		strings.Contains(branch, "..") || strings.Contains(branch, "//") || strings.ContainsAny(branch, `~^:?*[\`) {
		return fault("branch", branch, "no name of a branch")
	}
	return checkWord("branch", branch)
}

func checkPath(p string) error {
	if !fs.ValidPath(p) {
		return fault("path", p, "want a path from the root of the repo, without / at its ends and without . or .. in it")
	}
	return nil
}

func (o Options) checkSecret() error {
	if o.SecretName == "" {
		return nil
	}
	return fault("secret", o.SecretName, validation.IsDNS1123Subdomain(o.SecretName)...)
}

func checkUser(user string) error {
	if user == "system:anonymous" {
		return fault("agent user", user, "everybody who reaches the API server would have the agent's rights")
	}
	return checkWord("agent user", user)
}

// mostReplicas is more than anybody needs: all but one of them only wait.
const mostReplicas = 5

func (o Options) checkReplicas() error {
	if o.Replicas < 1 || o.Replicas > mostReplicas {
		return fmt.Errorf("replicas %d: want 1 to %d (one works, the others wait for it to die)", o.Replicas, mostReplicas)
	}
	return nil
}

func (o Options) checkServer() error {
	switch {
	case o.Server == "":
		return nil
	case o.AgentImage == "":
		return errors.New("server: is for the agent in the cluster, so it needs an agent image; an agent outside is told by slipway-agent --server")
	}
	return checkURL("server", o.Server, "https://HOST of slipway-server")
}

func (o Options) checkPrometheus() error {
	switch {
	case o.Prometheus == "":
		return nil
	case o.AgentImage == "":
		return errors.New("prometheus: is for the agent in the cluster, so it needs an agent image; an agent outside is told by slipway-agent --prometheus")
	}
	return checkURL("prometheus", o.Prometheus, "http://HOST:PORT of a Prometheus")
}

// checkWord refuses white space and what cannot be printed.
func checkWord(field, value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return fault(field, value, "has white space or unprintable characters in it")
	}
	return nil
}
