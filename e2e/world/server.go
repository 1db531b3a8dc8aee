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

// StartServer starts slipway-server for the environment repo, with a certificate of its
// own making and a token to push with, and waits until it listens.
func (w *World) StartServer(ctx context.Context, token string) (*Server, error) {
	binary, err := w.Binary(ctx, "slipway-server")
	if err != nil {
		return nil, err
	}
	dir, err := w.folder("server")
	if err != nil {
		return nil, err
	}
	password, certificates := filepath.Join(dir, "token"), filepath.Join(dir, "tls")
	if err := os.WriteFile(password, []byte(token), 0o600); err != nil {
		return nil, err
	}
	process, err := w.Run("slipway-server", binary, []string{
		"--repo", w.URL, "--branch", Branch, "--git-username", "slipway", "--git-password-file", password,
		"--listen", "127.0.0.1:0", "--tls-self-signed", certificates, "--data", filepath.Join(dir, "data"), "--metrics-address", "0", "--poll", "200ms",
	}, nil)
	if err != nil {
		return nil, err
	}
	server := &Server{Process: process, Trust: filepath.Join(certificates, "ca.crt")}
	return server, Eventually(ctx, 30*time.Second, func() error {
		content, err := os.ReadFile(process.Log)
		if err != nil {
			return err
		}
		for text := range strings.Lines(string(content)) {
			var line struct{ Msg, Address string }
			if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "serving" {
				server.URL = "https://" + line.Address
				return nil
			}
		}
		return errors.Join(errors.New("the server does not listen yet"), fmt.Errorf("it said: %s", content))
	})
}
