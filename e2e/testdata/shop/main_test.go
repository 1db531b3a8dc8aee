package main

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFirstPageShowsTheVersion(t *testing.T) {
	t.Setenv("GREETING", "Ahoy")
	t.Setenv("CURRENCY", "EUR")
	if _, err := currency(); err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	handler(version, func() bool { return true }).ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	if body := answer.Body.String(); !strings.Contains(body, "Ahoy from shop "+version) {
		t.Errorf("got %q", body)
	}
}
