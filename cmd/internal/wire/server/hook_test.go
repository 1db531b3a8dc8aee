package server_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/console/client"
)

// TestWebhook: a signed push becomes one run, however often the host sends it; a forged one becomes none.
func TestWebhook(t *testing.T) {
	w := newWorld(t)
	commit := w.write("Break the pipeline", map[string]string{".pipeline.yml": "nmae: env\n"})
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.serve(func(o *server.Options) {
		o.TLS, o.Poll = nil, 0
		o.Build = &server.Build{Config: server.Config{Sources: []server.Source{
			{Name: "env", URL: w.url, Webhook: &server.Webhook{Kind: "gitea", SecretFile: file}},
		}}}
	})
	url := strings.Replace(s.url, "https://", "http://", 1)
	body := fmt.Sprintf(`{"ref":"refs/heads/main","before":%q,"after":%q,"pusher":{"login":"ada"},"repository":{"full_name":"team/env","clone_url":%q}}`, w.failed, commit, w.url)
	send := func(secret string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/hooks/env", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Gitea-Event", "push")
		request.Header.Set("X-Gitea-Signature", hex.EncodeToString(mac.Sum(nil)))
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	if status := send("guessed"); status != http.StatusUnauthorized {
		t.Errorf("forged: %d", status)
	}
	for range 3 {
		if status := send("sesame"); status != http.StatusAccepted && status != http.StatusOK {
			t.Errorf("signed: %d", status)
		}
	}
	c, err := client.New(client.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var runs []builder.Run
	for deadline := time.Now().Add(30 * time.Second); len(runs) == 0; <-tick.C {
		if runs, err = c.Runs(t.Context(), builder.RunFilter{Commit: commit}); err != nil || time.Now().After(deadline) {
			t.Fatalf("no run: %v", err)
		}
	}
	if len(runs) != 1 || runs[0].Trigger.Actor != "ada" || runs[0].State != builder.Failed || !strings.Contains(runs[0].Reason, `did you mean "name"?`) {
		t.Errorf("%+v", runs)
	}
}
