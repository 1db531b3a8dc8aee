package undo_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// TestRequestOfTheFirstVersion: a newer server takes what an older agent has signed. Another program than this one made the files:
// they are what is fixed, and the code has to fit them.
func TestRequestOfTheFirstVersion(t *testing.T) {
	content, err := os.ReadFile("testdata/first-version-request.json")
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile("testdata/first-version.pub")
	if err != nil {
		t.Fatal(err)
	}
	key, err := undo.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	var request v1alpha1.RevertRequest
	if err := json.Unmarshal(content, &request); err != nil {
		t.Fatal(err)
	}
	if err := undo.Verify(key, request); err != nil {
		t.Errorf("%v: a field that agents of before do not send has to be left out when it is empty", err)
	}
	if request.Direct = false; undo.Verify(key, request) == nil {
		t.Error("a changed request is taken")
	}
}
