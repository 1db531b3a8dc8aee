package reconciler

import (
	"crypto/ed25519"
	"io/fs"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// oneFile is a tree with what the server signs by, or without.
type oneFile struct {
	gitsource.Tree
	content []byte
}

func (o oneFile) ReadFile(path string) ([]byte, error) {
	if o.content == nil || path != environment.ServerKeyPath {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return o.content, nil
}

// With a server the commit carries the server's key, which the repository names; an agent alone knows its own.
func TestCommitter(t *testing.T) {
	own, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	servers, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signs := func(*v1alpha1.RevertRequest) error { return nil }
	for name, test := range map[string]struct {
		sign    func(*v1alpha1.RevertRequest) error
		own     ed25519.PublicKey
		content []byte
		want    ed25519.PublicKey
		why     string
	}{
		"alone":                   {own: own, want: own},
		"alone without a key":     {why: "no key to sign its own with"},
		"by a server":             {sign: signs, own: own, content: undo.FormatPublicKey(servers), want: servers},
		"by one that nobody told": {sign: signs, own: own, why: "does not say which key"},
		"by one with an odd key":  {sign: signs, own: own, content: []byte("x"), why: "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pass{r: &ApplicationReconciler{ApplicationOptions: ApplicationOptions{Sign: test.sign, CommitKey: test.own}}}
			p.tipTree.Tree = oneFile{content: test.content}
			key, why := p.committer()
			if !key.Equal(test.want) || (why == "") != (test.why == "") || !strings.Contains(why, test.why) {
				t.Errorf("got %x, %q", key, why)
			}
		})
	}
}
