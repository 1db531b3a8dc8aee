package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Server is a slipway-server that runs.
type Server struct {
	*Process
	URL   string // of its API
	Trust string // PEM file with the authority of its certificate
}

// ServerOptions of one run of the server.
type ServerOptions struct {
	Token     string   // to push to the environment repo with
	Config    string   // file that says what is built; empty for a server that builds nothing
	Failpoint string   // stop exactly there; empty for the shipped binary
	Args      []string // more flags
}

// StartServer starts slipway-server for the environment repo, with a certificate of its
// own making, and waits until it listens.
func (w *World) StartServer(ctx context.Context, o ServerOptions) (*Server, error) {
	var tags, env []string
	if o.Failpoint != "" {
		tags, env = []string{"failpoints"}, []string{"SLIPWAY_FAILPOINT=" + o.Failpoint}
	}
	binary, err := w.Binary(ctx, "slipway-server", tags...)
	if err != nil {
		return nil, err
	}
	dir, err := w.folder("server")
	if err != nil {
		return nil, err
	}
	certificates := filepath.Join(dir, "tls")
	args := []string{
		"--listen", "127.0.0.1:0", "--tls-self-signed", certificates, "--data", filepath.Join(dir, "data"),
		"--metrics-address", "0", "--poll", "200ms",
	}
	if o.Config != "" {
		args = append(args, "--config", o.Config)
	} else {
		password := filepath.Join(dir, "token")
		if err := os.WriteFile(password, []byte(o.Token), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--repo", w.URL, "--branch", Branch, "--git-username", "slipway", "--git-password-file", password)
	}
	// The output of one run, so that the address of an earlier one is not taken for this one's.
	process, err := w.Run(fmt.Sprintf("slipway-server-%d", w.serial.Add(1)), binary, append(args, o.Args...), env)
	if err != nil {
		return nil, err
	}
	server := &Server{Process: process, Trust: filepath.Join(certificates, "ca.crt")}
	server.URL, err = process.address(ctx)
	return server, err
}

// address waits until the process says where it serves.
func (p *Process) address(ctx context.Context) (url string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.Done():
			cancel(errors.New("it has ended"))
		case <-ctx.Done():
		}
	}()
	err = Eventually(ctx, 2*time.Minute, func() error {
		content, err := os.ReadFile(p.Log)
		if err != nil {
			return err
		}
		for text := range strings.Lines(string(content)) {
			var line struct{ Msg, Address string }
			if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "serving" {
				url = "https://" + line.Address
				return nil
			}
		}
		return fmt.Errorf("%s does not listen yet; it said: %s", p.Name, content)
	})
	return url, err
}
