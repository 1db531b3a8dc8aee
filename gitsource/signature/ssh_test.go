package signature_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource/signature"
)

func TestSSHCommits(t *testing.T) {
	r := newRepository(t)
	key, stranger := r.sshKey("kim"), r.sshKey("stranger")
	unsigned := r.commit()
	r.signWithSSH(key)
	good := r.commit("-S")
	other := r.commit("-S", "-m", "another message")
	r.signWithSSH(stranger)
	foreign := r.commit("-S")
	pub := r.public(key)
	fingerprint := strings.Fields(string(r.run(nil, "ssh-keygen", "-l", "-f", key+".pub")))[1]
	for name, c := range map[string]struct {
		content []byte
		line    string
		err     error
		words   string // in the error, or the signer
	}{
		"signed":                          {good, "kim@example.com " + pub, nil, "kim@example.com (SSH key " + fingerprint + ")"},
		"unsigned":                        {unsigned, "kim@example.com " + pub, signature.ErrUnsigned, "not signed"},
		"by a stranger":                   {foreign, "kim@example.com " + pub, signature.ErrStranger, "which is not among the allowed signers"},
		"tampered message":                {bytes.Replace(good, []byte("Body"), []byte("Evil"), 1), "kim@example.com " + pub, signature.ErrInvalid, "did not sign this"},
		"tampered tree":                   {bytes.Replace(good, []byte("tree "), []byte("tree 0"), 1), "kim@example.com " + pub, signature.ErrInvalid, "did not sign this"},
		"the signature of another":        {transplant(t, other, good), "kim@example.com " + pub, signature.ErrInvalid, "did not sign this"},
		"expired":                         {good, `kim@example.com valid-before="20260304050606Z" ` + pub, signature.ErrStranger, "not valid any more (valid-before 2026-03-04T05:06:06Z)"},
		"in the last second":              {good, `kim@example.com valid-before="20260304050607Z" ` + pub, nil, "kim@example.com"},
		"not valid yet":                   {good, `kim@example.com valid-after="20260304050608Z" ` + pub, signature.ErrStranger, "before it was valid"},
		"valid from the first second":     {good, `kim@example.com valid-after="20260304050607" ` + pub, nil, "kim@example.com"},
		"valid by day":                    {good, `kim@example.com valid-after="20260304",valid-before="20260305" ` + pub, nil, "kim@example.com"},
		"for the namespace":               {good, `kim@example.com namespaces="file,git" ` + pub, nil, "kim@example.com"},
		"for namespaces by pattern":       {good, `kim@example.com namespaces="g*" ` + pub, nil, "kim@example.com"},
		"for other namespaces":            {good, `kim@example.com namespaces="file" ` + pub, signature.ErrStranger, `for the namespaces "file" only`},
		"for all namespaces but this":     {good, `kim@example.com namespaces="*,!git" ` + pub, signature.ErrStranger, "only, not for"},
		"a second line allows it":         {good, "kim@example.com namespaces=\"file\" " + pub + "\nkim@work.example " + pub, nil, "kim@work.example"},
		"quoted principals":               {good, `"kim@example.com,*@work.example" ` + pub, nil, "kim@example.com,*@work.example"},
		"two signatures":                  {bytes.Replace(good, []byte("gpgsig "), []byte("gpgsig x\ngpgsig "), 1), "kim@example.com " + pub, signature.ErrInvalid, "2 signatures"},
		"a signature of unknown kind":     {bytes.Replace(good, []byte("BEGIN SSH"), []byte("BEGIN ODD"), 1), "kim@example.com " + pub, signature.ErrInvalid, "kind is not known"},
		"X.509":                           {bytes.Replace(good, []byte("BEGIN SSH SIGNATURE"), []byte("BEGIN SIGNED MESSAGE"), 1), "kim@example.com " + pub, signature.ErrStranger, "X.509"},
		"a broken signature":              {bytes.Replace(good, []byte("U1NIU0lH"), []byte("AAAAAAAA"), 1), "kim@example.com " + pub, signature.ErrInvalid, "no SSH signature"},
		"OpenPGP keys only are of no use": {good, "kim@example.com " + r.public(stranger), signature.ErrStranger, fingerprint},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := allowed(t, c.line).Commit(c.content)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("got %q, %v, want %v", signer, err, c.err)
			}
			if said := signer.String(); err == nil && !strings.Contains(said, c.words) || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %q, %v, want %q in it", said, err, c.words)
			}
		})
	}
	if signer, err := (signature.Keys{}).Commit(good); !errors.Is(err, signature.ErrStranger) {
		t.Errorf("without keys: %q, %v", signer, err)
	}
}

// transplant puts the signature of one commit into another.
func transplant(t *testing.T, into, from []byte) []byte {
	t.Helper()
	cut := func(content []byte) (before, sig, after []byte) {
		start := bytes.Index(content, []byte("gpgsig "))
		end := bytes.Index(content, []byte("-----END SSH SIGNATURE-----\n")) + len("-----END SSH SIGNATURE-----\n")
		if start < 0 || end < start {
			t.Fatalf("not signed:\n%s", content)
		}
		return content[:start], content[start:end], content[end:]
	}
	_, sig, _ := cut(from)
	before, _, after := cut(into)
	return bytes.Join([][]byte{before, sig, after}, nil)
}

func TestSSHKindsOfKeys(t *testing.T) {
	for _, kind := range []struct{ name, bits string }{{"ed25519", ""}, {"ecdsa", "256"}, {"ecdsa", "521"}, {"rsa", "3072"}} {
		r := newRepository(t)
		options := []string{"-t", kind.name}
		if kind.bits != "" {
			options = append(options, "-b", kind.bits)
		}
		key := r.sshKey("kim", options...)
		r.signWithSSH(key)
		if signer, err := allowed(t, "kim@example.com "+r.public(key)).Commit(r.commit("-S")); err != nil {
			t.Errorf("%s %s: %q, %v", kind.name, kind.bits, signer, err)
		}
	}
	r := newRepository(t)
	short := r.sshKey("short", "-t", "rsa", "-b", "1024")
	r.signWithSSH(short)
	if signer, err := allowed(t, "kim@example.com "+r.public(short)).Commit(r.commit("-S")); !errors.Is(err, signature.ErrInvalid) || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("short key: %q, %v", signer, err)
	}
}

// A file that somebody signed must not pass for a commit.
func TestSSHWrongNamespace(t *testing.T) {
	r := newRepository(t)
	key := r.sshKey("kim")
	unsigned := r.commit()
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, unsigned, 0o600); err != nil {
		t.Fatal(err)
	}
	sign := func(namespace string) []byte {
		r.run(nil, "ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key, file)
		armored, err := os.ReadFile(file + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file + ".sig"); err != nil {
			t.Fatal(err)
		}
		header := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(string(armored)), "\n", "\n ") + "\n"
		return bytes.Replace(unsigned, []byte("\n\n"), []byte("\n"+header+"\n"), 1)
	}
	keys := allowed(t, "kim@example.com "+r.public(key))
	if _, err := keys.Commit(sign("git")); err != nil {
		t.Errorf("in the namespace git: %v", err)
	}
	if signer, err := keys.Commit(sign("file")); !errors.Is(err, signature.ErrInvalid) || !strings.Contains(err.Error(), `namespace "file"`) {
		t.Errorf("got %q, %v", signer, err)
	}
}

func TestSSHTags(t *testing.T) {
	r := newRepository(t)
	key := r.sshKey("kim")
	r.signWithSSH(key)
	r.commit()
	first := r.head()
	r.git("tag", "-s", "-m", "First", "v1")
	r.git("tag", "-a", "-m", "Unsigned", "plain")
	r.git("tag", "-s", "-m", "Of a tag", "nested", "v1")
	r.commit()
	keys := allowed(t, "kim@example.com "+r.public(key))
	v1 := r.object("tag", "v1")
	if signer, err := keys.Tag(v1, "v1", first); err != nil || signer.Name != "kim@example.com" {
		t.Errorf("got %q, %v", signer, err)
	}
	for name, c := range map[string]struct {
		content []byte
		name    string
		err     error
	}{
		"of another name":      {v1, "v2", signature.ErrInvalid},
		"of a longer name":     {v1, "v", signature.ErrInvalid},
		"unsigned":             {r.object("tag", "plain"), "plain", signature.ErrUnsigned},
		"tampered":             {bytes.Replace(v1, []byte("First"), []byte("Worst"), 1), "v1", signature.ErrInvalid},
		"something at the end": {append(bytes.Clone(v1), "more\n"...), "v1", signature.ErrInvalid},
		"of a tag":             {r.object("tag", "nested"), "nested", signature.ErrInvalid},
	} {
		if signer, err := keys.Tag(c.content, c.name, first); !errors.Is(err, c.err) {
			t.Errorf("%s: got %q, %v, want %v", name, signer, err, c.err)
		}
	}
	if signer, err := keys.Tag(v1, "v1", r.head()); !errors.Is(err, signature.ErrInvalid) {
		t.Errorf("of another commit: %q, %v", signer, err)
	}
}

func TestAllowedSignersAreRefused(t *testing.T) {
	r := newRepository(t)
	key := r.public(r.sshKey("kim"))
	authority := r.sshKey("authority")
	member := r.sshKey("member")
	r.run(nil, "ssh-keygen", "-q", "-s", authority, "-I", "kim", "-n", "kim", member+".pub")
	certificate, err := os.ReadFile(member + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{
		"":                                           "names no signer",
		"# nobody\n\n":                               "names no signer",
		"kim@example.com":                            "line 1: want PRINCIPALS",
		"\n# x\nkim@example.com ssh-ed25519":         "line 3: the key of kim@example.com cannot be read",
		"kim@example.com cert-authority " + key:      "cert-authority: SSH certificates are not supported",
		"kim@example.com no-touch " + key:            "no-touch: is no option",
		`kim@example.com namespaces="" ` + key:       "namespaces: is empty",
		`kim@example.com valid-before="soon" ` + key: `valid-before: "soon" is no time`,
		`kim@example.com valid-after="20260102",valid-before="20260101" ` + key: "valid-before is not after valid-after",
		`"kim@example.com ` + key:                "quote has no end",
		"kim@example.com " + string(certificate): "is a certificate",
	} {
		_, err := signature.ParseKeys(map[string][]byte{signature.AllowedSigners: []byte(content)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", content, err, want)
		}
	}
	for name, want := range map[string]string{"id.pub": "want the name allowed_signers", "": "want the name"} {
		if _, err := signature.ParseKeys(map[string][]byte{name: []byte(key)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("file %q: %v", name, err)
		}
	}
	if _, err := signature.ParseKeys(nil); err == nil {
		t.Error("no keys at all")
	}
}

// A certificate's key signs as well as any, but who it belongs to is the authority's word, which nobody checks here.
func TestSSHCertificateIsRefused(t *testing.T) {
	r := newRepository(t)
	authority, member := r.sshKey("authority"), r.sshKey("member")
	r.run(nil, "ssh-keygen", "-q", "-s", authority, "-I", "kim", "-n", "kim", member+".pub")
	r.signWithSSH(member + "-cert.pub")
	content := r.commit("-S")
	signer, err := allowed(t, "kim@example.com "+r.public(member)).Commit(content)
	if !errors.Is(err, signature.ErrInvalid) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %q, %v", signer, err)
	}
}

func FuzzCommit(f *testing.F) {
	f.Add([]byte("tree x\ncommitter A <a@b> 1 +0000\ngpgsig -----BEGIN SSH SIGNATURE-----\n U1NIU0lH\n -----END SSH SIGNATURE-----\n\nm\n"))
	f.Add([]byte("committer A <a@b> 1 +0000\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ==\n -----END PGP SIGNATURE-----\n\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if signer, err := (signature.Keys{}).Commit(content); err == nil {
			t.Errorf("nobody is trusted, but %q is", signer)
		}
	})
}
