package gitea

import "testing"

func TestBuild(t *testing.T) {
	if err := Build(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
}
