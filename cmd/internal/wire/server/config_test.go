package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const whole = `
environments:
  - url: https://git.example/fleet.git
    login: {username: slipway, passwordFile: git}
    host: gitea
    name: fleet
    webhook: {kind: gitea, secretFile: fleet-hook}
sources:
  - name: shop
    url: https://git.example/team/shop.git
    webhook: {kind: gitea, secretFile: hook}
registries:
  - {host: "127.0.0.1:5000", insecure: true, username: push, passwordFile: /run/registry}
signing: {keyFile: cosign.key, passwordFile: cosign.password}
queue: {listen: "127.0.0.1:4222", credentialsFile: queue.creds}
worker: {jobs: 2}
tokensFile: tokens
`

func TestConfigIsReadWithPathsOfItsFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "server.yaml")
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range [][2]string{
		{c.Sources[0].Webhook.SecretFile, filepath.Join(dir, "hook")},
		{c.Environments[0].Login.PasswordFile, filepath.Join(dir, "git")},
		{c.Environments[0].Webhook.SecretFile, filepath.Join(dir, "fleet-hook")},
		{c.Registries[0].PasswordFile, "/run/registry"},
		{c.Registries[0].Username, "push"},
		{c.Queue.CredentialsFile, filepath.Join(dir, "queue.creds")},
		{c.Environments[0].Branch, "main"},
	} {
		if got[0] != got[1] {
			t.Errorf("got %q, want %q", got[0], got[1])
		}
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"unknown key":        {"sorces: []", "field sorces not found"},
		"login in a URL":     {"environments: [{url: 'https://me:pw@git.example/fleet.git'}]", "environments[0].url: holds a login (put the password into a file"},
		"unsigned webhook":   {"sources: [{name: shop, url: 'https://g/shop', webhook: {kind: gitea}}]", "an unsigned webhook could be sent by anybody"},
		"unknown host":       {"sources: [{name: shop, url: 'https://g/team/shop', host: github, login: {username: a, passwordFile: b}}]", `sources[0].host: host "github": this version speaks with gitea alone`},
		"host, no login":     {"environments: [{url: 'https://g/team/fleet', host: gitea}]", "environments[0].host: nothing may be written on gitea without a login"},
		"hook, no name":      {"environments: [{url: 'https://g/team/fleet', webhook: {kind: gitea, secretFile: a}}]", `environments[0].name: "": want 1 to 63`},
		"name taken":         {"environments: [{name: a, url: 'https://g/a'}]\nsources: [{name: a, url: 'https://g/a'}]", "sources[0].name: a is there twice"},
		"bad name":           {"sources: [{name: Shop, url: 'https://g/shop'}]", `sources[0].name: "Shop": want 1 to 63`},
		"same name":          {"sources: [{name: a, url: 'https://g/a'}, {name: a, url: 'https://g/b'}]", "sources[1].name: a is there twice"},
		"unknown repo":       {"sources: [{name: a, url: 'https://g/a', environments: 'https://g/x'}]", "sources[0].environments: https://g/x is not the url"},
		"which repo":         {"environments: [{url: 'https://g/e'}, {url: 'https://g/f'}]\nsources: [{name: a, url: 'https://g/a'}]", "there are 2 environment repos"},
		"two queues":         {"queue: {url: 'nats://q:4222', listen: ':4222', credentialsFile: c}", "leave one out"},
		"open queue":         {"queue: {listen: ':4222'}", "queue.credentialsFile: required"},
		"short lease":        {"queue: {lease: 10ms}", "queue.lease: 10ms: want 1s to 1h"},
		"registry with path": {"registries: [{host: 'r/x'}]", "registries[0].host"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConfig([]byte(test.content))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "pw@") {
				t.Errorf("a password is in %v", err)
			}
		})
	}
}

func TestNothingConfiguredIsFine(t *testing.T) {
	if _, err := parseConfig(nil); err != nil {
		t.Error(err)
	}
}
