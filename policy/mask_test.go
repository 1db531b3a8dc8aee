package policy_test

import (
	"encoding/base64"
	"testing"

	"github.com/slipway-cd/slipway/policy"
)

func TestMask(t *testing.T) {
	t.Parallel()
	m := policy.NewMask([]policy.Secret{
		policy.NewSecret("hunter2"), policy.NewSecret("-----BEGIN-----\nabcdefgh\nijklmnop\n"), policy.NewSecret(""), policy.NewSecret("ab"),
		policy.NewSecret("p@ss/word+1"),
	})
	for in, want := range map[string]string{
		"password: hunter2, again hunter2.": "password: [secret], again [secret].",
		"ab is too short":                   "ab is too short",
		"ijklmnop":                          "[secret]",
		"https://u:p%40ss%2Fword%2B1@host":  "https://u:[secret]@host",
		"Basic " + base64.StdEncoding.EncodeToString([]byte("hunter2")): "Basic [secret]",
	} {
		if got := m.Clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := policy.NewMask(nil).Clean("as it is"); got != "as it is" {
		t.Error(got)
	}
}
