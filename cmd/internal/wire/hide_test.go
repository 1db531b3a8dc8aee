package wire

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

func TestHiding(t *testing.T) {
	secret := "p<a\"ss\nword=horse-battery"
	hide := hiding([]string{secret, "short-secret-and-more", "short-secret", "abc", "true"})
	once, err := json.Marshal(map[string]string{"a": secret})
	if err != nil {
		t.Fatal(err)
	}
	twice, err := json.Marshal(map[string]string{"b": string(once)})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"plain": secret, "JSON": string(once), "JSON in JSON": string(twice), "base64": base64.StdEncoding.EncodeToString([]byte(secret)),
		"one line of it": "word=horse-battery", "what a line sets": "x horse-battery y", "one that holds another": "short-secret-and-more",
	} {
		got := hide(text)
		for _, rest := range []string{"horse", "battery", "ss", "more", base64.StdEncoding.EncodeToString([]byte(secret))[:8]} {
			if strings.Contains(strings.ReplaceAll(got, masked, ""), rest) {
				t.Errorf("%s: %q is left of %q: %q", name, rest, text, got)
			}
		}
	}
	// What is too short or says nothing would mask half of every text.
	if got := hide("abc is true, and so on"); got != "abc is true, and so on" {
		t.Errorf("got %q", got)
	}
	if got := hiding(nil)("anything"); got != "anything" {
		t.Errorf("got %q", got)
	}
}
