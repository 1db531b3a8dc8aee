package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/console/client"
	"github.com/slipway-cd/slipway/policy"
)

// TestAPI: what people ask is answered from the real queue and repository, to who holds a token.
func TestAPI(t *testing.T) {
	w := newWorld(t)
	secret, line, err := console.NewToken("ada", console.Read)
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.serve(func(o *server.Options) {
		o.TLS, o.Build = nil, &server.Build{Config: server.Config{TokensFile: tokens}}
	})
	url := strings.Replace(s.url, "https://", "http://", 1)
	connect := func(token policy.Secret) *client.Client {
		c, err := client.New(client.Options{URL: url, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if _, err := connect(policy.Secret{}).Runs(t.Context(), builder.RunFilter{}); err == nil || !strings.Contains(err.Error(), "a token is needed") {
		t.Error(err)
	}
	c := connect(secret)
	if runs, err := c.Runs(t.Context(), builder.RunFilter{States: []builder.State{builder.Running}}); err != nil || len(runs) > 0 {
		t.Error(runs, err)
	}
	if _, err := c.Run(t.Context(), "20261101-080000-000-0123456789"); !errors.Is(err, builder.ErrNotFound) {
		t.Error(err)
	}
	if _, err := c.Retry(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "this needs write") {
		t.Error(err)
	}
	for _, subject := range []string{string(w.failed), "sha256:" + strings.Repeat("b", 64), "shop"} {
		stages, err := c.Trace(t.Context(), subject)
		found := false
		for _, stage := range stages {
			found = found || stage.Stage == "promoted" && strings.HasSuffix(stage.ID, strings.Repeat("b", 64))
		}
		if err != nil || !found {
			t.Error(subject, stages, err)
		}
	}
	if _, err := c.Trace(t.Context(), "nothing"); !errors.Is(err, builder.ErrNotFound) {
		t.Error(err)
	}
}
