package gogit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/policy"
)

// sshHost lets those in who have a key, and runs git-upload-pack and git-receive-pack for them.
type sshHost struct {
	*host
	address  string
	hostKey  ssh.Signer
	allowed  ssh.PublicKey
	silent   atomic.Bool // says nothing to those who come
	sessions sync.WaitGroup
}

func newSSHHost(t *testing.T, allowed ssh.PublicKey) *sshHost {
	t.Helper()
	s := &sshHost{host: newHost(t), allowed: allowed, hostKey: signerOf(t, newIdentity(t, ""))}
	config := &ssh.ServerConfig{PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if conn.User() != "git" || !bytes.Equal(key.Marshal(), allowed.Marshal()) {
			return nil, errors.New("unknown")
		}
		return &ssh.Permissions{}, nil
	}}
	config.AddHostKey(signerOf(t, newECDSA(t))) // one that known_hosts does not have
	config.AddHostKey(s.hostKey)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	s.sessions.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.sessions.Go(func() { s.serve(conn, config) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		s.sessions.Wait()
	})
	return s
}

func (s *sshHost) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer func() { _ = conn.Close() }()
	if s.silent.Load() {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for asked := range channels {
		channel, requests, err := asked.Accept()
		if err != nil {
			return
		}
		for request := range requests {
			if request.Type != "exec" {
				_ = request.Reply(false, nil)
				continue
			}
			_ = request.Reply(true, nil)
			s.exec(channel, string(request.Payload[4:]))
			break
		}
	}
}

func (s *sshHost) exec(channel ssh.Channel, command string) {
	defer func() { _ = channel.Close() }()
	service, rest, _ := strings.Cut(command, " ")
	if service != "git-upload-pack" && service != "git-receive-pack" {
		_, _ = fmt.Fprintf(channel.Stderr(), "%s: not allowed\n", command)
		return
	}
	// A shell takes the quotes away, as it does on a real host.
	cmd := exec.Command("sh", "-c", "exec git "+strings.TrimPrefix(service, "git-")+" "+rest)
	in, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
	if err := cmd.Start(); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(in, channel)
		_ = in.Close()
	}()
	status := make([]byte, 4)
	if cmd.Wait() != nil {
		status[3] = 1
	}
	_, _ = channel.SendRequest("exit-status", false, status)
}

func (s *sshHost) url() string { return "ssh://git@" + s.address + s.dir }

// known is the line of known_hosts for this host.
func (s *sshHost) known() []byte {
	return []byte(knownhosts.Line([]string{s.address}, s.hostKey.PublicKey()) + "\n")
}

// newIdentity makes a private key for ssh, encrypted if there is a password.
func newIdentity(t *testing.T, password string) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if password == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(password))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

func newECDSA(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	content, err := exec.Command("cat", dir+"/key").Output()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func signerOf(t *testing.T, identity []byte) ssh.Signer {
	t.Helper()
	signer, err := ssh.ParsePrivateKey(identity)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func (s *sshHost) open(identity []byte, with ...func(*gogit.Auth)) *gogit.Store {
	s.t.Helper()
	auth := &gogit.Auth{Identity: policy.NewSecret(string(identity)), KnownHosts: s.known()}
	for _, f := range with {
		f(auth)
	}
	store, err := gogit.Open(context.Background(), gogit.Options{Dir: s.t.TempDir(), URL: s.url(), Auth: auth})
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

func TestSSH(t *testing.T) {
	identity := newIdentity(t, "")
	h := newSSHHost(t, signerOf(t, identity).PublicKey())
	ctx := context.Background()
	s := h.open(identity)
	if _, err := s.Fetch(ctx, mainRef); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("empty repository: %v", err)
	}
	first := write(t, s, "", gitsource.Change{Path: "a", Content: []byte("1")})
	if err := s.Push(ctx, mainRef, "", first); err != nil {
		t.Fatal(err)
	}
	h.git(h.work, "pull", "-q", "origin", "main")
	large := map[string]string{}
	for i := range 50 {
		large[fmt.Sprintf("many/%d", i)] = strings.Repeat(fmt.Sprint(i), 20_000)
	}
	second := h.commit("two", large)
	if got := fetch(t, s); got.ID != second || got.URL != h.url() || read(t, s, second, "many/7") != strings.Repeat("7", 20_000) {
		t.Errorf("got %+v", got)
	}
	third := h.commit("three", map[string]string{"a": "3"})
	if got := fetch(t, s); got.ID != third || read(t, s, third, "a") != "3" {
		t.Errorf("got %+v", got)
	}
	other := h.open(identity)
	fetch(t, other)
	mine := write(t, s, third, gitsource.Change{Path: "a", Content: []byte("mine")})
	if err := s.Push(ctx, mainRef, third, mine); err != nil {
		t.Fatal(err)
	}
	late := write(t, other, third, gitsource.Change{Path: "a", Content: []byte("late")})
	if err := other.Push(ctx, mainRef, third, late); !errors.Is(err, gitsource.ErrMoved) {
		t.Errorf("lost race: %v", err)
	}
	if got := fetch(t, other); got.ID != mine || read(t, other, mine, "a") != "mine" {
		t.Errorf("got %+v", got)
	}
	commits, err := other.Log(ctx, mine, 10)
	if err != nil || len(commits) != 4 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
	if out := h.git(h.dir, "fsck", "--strict", "--full"); strings.Contains(out, "error") || strings.Contains(out, "missing") {
		t.Error(out)
	}
}

func TestSSHErrors(t *testing.T) {
	identity := newIdentity(t, "")
	h := newSSHHost(t, signerOf(t, identity).PublicKey())
	h.commit("one", map[string]string{"a": "1"})
	ctx := context.Background()
	refused := func(name string, s *gogit.Store, want string) {
		t.Helper()
		_, err := s.Fetch(ctx, mainRef)
		if err == nil || errors.Is(err, gitsource.ErrUnreachable) || errors.Is(err, gitsource.ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	refused("an unknown identity", h.open(newIdentity(t, "")), "does not know this identity")
	imposter := signerOf(t, newIdentity(t, "")).PublicKey()
	refused("another host key", h.open(identity, func(a *gogit.Auth) {
		a.KnownHosts = []byte(knownhosts.Line([]string{h.address}, imposter) + "\n")
	}), "a key that known_hosts does not have")
	refused("a revoked host key", h.open(identity, func(a *gogit.Auth) {
		a.KnownHosts = append(append([]byte("@revoked "), h.known()...), knownhosts.Line([]string{h.address}, imposter)+"\n"...)
	}), "known_hosts")
	missing, err := gogit.Open(ctx, gogit.Options{
		Dir: t.TempDir(), URL: "ssh://git@" + h.address + "/nowhere/it's.git", Auth: &gogit.Auth{Identity: policy.NewSecret(string(identity)), KnownHosts: h.known()},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := missing.Fetch(ctx, mainRef); !errors.Is(err, gitsource.ErrNotFound) {
		t.Errorf("missing repository: %v", err)
	}
	h.silent.Store(true)
	quick, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := h.open(identity).Fetch(quick, mainRef); !errors.Is(err, gitsource.ErrUnreachable) || time.Since(start) > 5*time.Second {
		t.Errorf("a silent host, after %s: %v", time.Since(start), err)
	}
}

func TestSSHIdentities(t *testing.T) {
	locked := newIdentity(t, "open sesame")
	signer, err := ssh.ParsePrivateKeyWithPassphrase(locked, []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	h := newSSHHost(t, signer.PublicKey())
	id := h.commit("one", map[string]string{"a": "1"})
	s := h.open(locked, func(a *gogit.Auth) {
		a.IdentityPassword = policy.NewSecret("open sesame")
		a.PublicKey = ssh.MarshalAuthorizedKey(signer.PublicKey())
	})
	if got := fetch(t, s); got.ID != id {
		t.Errorf("got %+v", got)
	}
	plain := newIdentity(t, "")
	other := ssh.MarshalAuthorizedKey(signer.PublicKey())
	for name, c := range map[string]struct {
		auth *gogit.Auth
		want string
	}{
		"none at all":        {nil, "ssh needs an identity"},
		"no known_hosts":     {&gogit.Auth{Identity: policy.NewSecret(string(plain))}, "ssh needs known_hosts"},
		"empty known_hosts":  {&gogit.Auth{Identity: policy.NewSecret(string(plain)), KnownHosts: []byte("\n")}, "ssh needs known_hosts"},
		"broken known_hosts": {&gogit.Auth{Identity: policy.NewSecret(string(plain)), KnownHosts: []byte("host ssh-ed25519 x\n")}, "known_hosts cannot be read"},
		"another's host":     {&gogit.Auth{Identity: policy.NewSecret(string(plain)), KnownHosts: []byte(knownhosts.Line([]string{"other.example"}, signer.PublicKey()))}, "has no key of"},
		"no key":             {&gogit.Auth{Identity: policy.NewSecret("hidden"), KnownHosts: h.known()}, "no private key for ssh"},
		"no password":        {&gogit.Auth{Identity: policy.NewSecret(string(locked)), KnownHosts: h.known()}, "no password for it"},
		"a wrong password":   {&gogit.Auth{Identity: policy.NewSecret(string(locked)), IdentityPassword: policy.NewSecret("hidden"), KnownHosts: h.known()}, "cannot be opened with its password"},
		"not of one pair":    {&gogit.Auth{Identity: policy.NewSecret(string(plain)), PublicKey: other, KnownHosts: h.known()}, "give both of one pair"},
		"with a login":       {&gogit.Auth{Username: "u", Password: policy.NewSecret("hidden"), Identity: policy.NewSecret(string(plain)), KnownHosts: h.known()}, "are for https"},
	} {
		_, err := gogit.Open(context.Background(), gogit.Options{Dir: t.TempDir(), URL: h.url(), Auth: c.auth})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestOddURLs(t *testing.T) {
	auth := &gogit.Auth{Identity: policy.NewSecret(string(newIdentity(t, ""))), KnownHosts: []byte("x")}
	for _, url := range []string{
		"ssh://-oProxyCommand=x/y.git", "ssh://git@-oProxyCommand=x/y.git", "ssh://-l@host/y.git", "ssh://host/y.git", "ssh://git@host", "ssh://git@host/",
		"ssh://git@host/-y", "ssh://git@host//--upload-pack=x", "ssh://git:hidden@host/y.git", "ssh://git@host/y?x=1", "ssh://git@host/y#x", "ssh://git@host:0/y",
		"ssh://git@host:99999/y", "ssh://git@ho%20st/y", "ssh://git@host/a%0ab", "ssh://gi%3bt@host/y", "ssh://git@$(x)/y", "git@host:y.git", "-oProxyCommand=x:y", "ssh:git@host/y",
	} {
		_, err := gogit.Open(context.Background(), gogit.Options{Dir: t.TempDir(), URL: url, Auth: auth})
		if err == nil || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "git url") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
