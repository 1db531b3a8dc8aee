package deliver_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/notice"
	"github.com/slipway-cd/slipway/reconciler/notice/deliver"
)

func said(ready string) deliver.Notice {
	return deliver.Notice{
		Message: notice.Message{Cluster: "eu", Kind: "Application", Name: "shop", Application: "shop", Ready: ready, Reason: "RenderFailed", Message: "no such file"},
		Text:    "shop <!channel> failed", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// heard is what a receiver got.
type heard struct {
	path   string
	header http.Header
	body   []byte
}

func receiver(t *testing.T, code int) (string, *heard) {
	t.Helper()
	got := &heard{}
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*got = heard{r.URL.Path, r.Header, body}
		out.WriteHeader(code)
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

func TestSlack(t *testing.T) {
	t.Parallel()
	address, got := receiver(t, 200)
	if err := deliver.New().Send(t.Context(), v1alpha1.NotifySlack, map[string][]byte{"address": []byte(address + "/services/T0\n")}, said("False")); err != nil {
		t.Fatal(err)
	}
	if string(got.body) != `{"text":"shop \u0026lt;!channel\u0026gt; failed"}` || got.path != "/services/T0" {
		t.Errorf("%s: %s", got.path, got.body)
	}
}

func TestWebhookIsSigned(t *testing.T) {
	t.Parallel()
	address, got := receiver(t, 202)
	if err := deliver.New().Send(t.Context(), v1alpha1.NotifyWebhook, map[string][]byte{"address": []byte(address), "key": []byte("k")}, said("False")); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte("k"))
	mac.Write(got.body)
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); got.header.Get("X-Signature") != want {
		t.Errorf("signature %q, want %q", got.header.Get("X-Signature"), want)
	}
	var body map[string]any
	if err := json.Unmarshal(got.body, &body); err != nil || body["name"] != "shop" || body["reason"] != "RenderFailed" || body["text"] == "" {
		t.Errorf("%v %s", err, got.body)
	}
}

func TestAlertmanager(t *testing.T) {
	t.Parallel()
	address, got := receiver(t, 200)
	secret := map[string][]byte{"address": []byte(address + "/am"), "token": []byte("t")}
	var labels []any
	for _, ready := range []string{"False", "True", "Unknown"} {
		if err := deliver.New().Send(t.Context(), v1alpha1.NotifyAlertmanager, secret, said(ready)); err != nil {
			t.Fatal(err)
		}
		var alerts []map[string]any
		if err := json.Unmarshal(got.body, &alerts); err != nil || len(alerts) != 1 || got.path != "/am/api/v2/alerts" || got.header.Get("Authorization") != "Bearer t" {
			t.Fatalf("%s: %v: %s", got.path, err, got.body)
		}
		if want := map[string]string{"False": "2026-01-03T03:04:05Z", "True": "2026-01-02T03:04:05Z", "Unknown": "2026-01-02T03:04:05Z"}[ready]; alerts[0]["endsAt"] != want {
			t.Errorf("Ready %s: %s, want endsAt %s", ready, got.body, want)
		}
		text, err := json.Marshal(alerts[0]["labels"])
		if err != nil {
			t.Fatal(err)
		}
		labels = append(labels, string(text))
	}
	if labels[0] != labels[1] || labels[0] != labels[2] {
		t.Errorf("the end has other labels than the beginning: %s", labels)
	}
}

// TestErrors: what can be mended by waiting is told from what cannot, and nothing shows the address.
func TestErrors(t *testing.T) {
	t.Parallel()
	const hidden = "TOPSECRET"
	down, _ := receiver(t, 503)
	gone, _ := receiver(t, 404)
	moved, _ := receiver(t, 302)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, c := range map[string]struct {
		address string
		final   bool
	}{
		"overloaded": {down + "/" + hidden, false},
		"gone":       {gone + "/" + hidden, true},
		"moved":      {moved + "/" + hidden, true},
		"closed":     {closed.URL + "/" + hidden, false},
		"no URL":     {hidden, true},
		"odd":        {"http://[" + hidden, true},
		"file":       {"file:///" + hidden, true},
		"":           {"", true},
	} {
		err := deliver.New().Send(t.Context(), v1alpha1.NotifySlack, map[string][]byte{"address": []byte(c.address)}, said("False"))
		if err == nil || errors.Is(err, deliver.ErrInvalid) != c.final {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), hidden) {
			t.Errorf("%s: the error shows the address: %v", name, err)
		}
	}
	err := deliver.New().Send(t.Context(), v1alpha1.NotifyWebhook, map[string][]byte{"address": []byte(gone)}, said("False"))
	if !errors.Is(err, deliver.ErrInvalid) || !strings.Contains(err.Error(), "key") {
		t.Errorf("without a key: %v", err)
	}
}
