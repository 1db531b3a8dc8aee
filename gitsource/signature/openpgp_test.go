package signature_test

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/slipway-cd/slipway/gitsource/signature"
)

// pgpKey makes a key that is valid from the day before made on.
func pgpKey(t *testing.T, name string) *openpgp.Entity {
	t.Helper()
	entity, err := openpgp.NewEntity(name, "", name+"@example.com", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return madeAt(t).Add(-24 * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return entity
}

func madeAt(t *testing.T) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, made)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// expire lets a key have ended an hour after it was made.
func expire(t *testing.T, entity *openpgp.Entity) {
	t.Helper()
	hour := uint32(3600)
	for _, identity := range entity.Identities {
		identity.SelfSignature.KeyLifetimeSecs = &hour
		if err := identity.SelfSignature.SignUserId(identity.UserId.Id, entity.PrimaryKey, entity.PrivateKey, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func export(t *testing.T, entities ...*openpgp.Entity) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, entity := range entities {
		w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := entity.Serialize(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n")
	}
	return out.Bytes()
}

// sign signs a commit as gpg does.
func sign(t *testing.T, entity *openpgp.Entity, unsigned []byte, hash crypto.Hash) []byte {
	t.Helper()
	var armored bytes.Buffer
	config := &packet.Config{Time: func() time.Time { return madeAt(t) }, DefaultHash: hash}
	if err := openpgp.ArmoredDetachSign(&armored, entity, bytes.NewReader(unsigned), config); err != nil {
		t.Fatal(err)
	}
	header := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(armored.String()), "\n", "\n ") + "\n"
	return bytes.Replace(unsigned, []byte("\n\n"), []byte("\n"+header+"\n"), 1)
}

func TestOpenPGPCommits(t *testing.T) {
	r := newRepository(t)
	unsigned := r.commit()
	kim, robin, stranger := pgpKey(t, "kim"), pgpKey(t, "robin"), pgpKey(t, "stranger")
	short, revoked := pgpKey(t, "short"), pgpKey(t, "revoked")
	good := sign(t, kim, unsigned, crypto.SHA512)
	byRevoked, byShort := sign(t, revoked, unsigned, crypto.SHA512), sign(t, short, unsigned, crypto.SHA512)
	expire(t, short)
	if err := revoked.RevokeKey(packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
	keys, err := signature.ParseKeys(map[string][]byte{"team.asc": export(t, kim, robin), "others.asc": export(t, short, revoked)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		err     error
		words   string
	}{
		"signed":               {good, nil, fmt.Sprintf("kim <kim@example.com> (OpenPGP key %X)", kim.PrimaryKey.Fingerprint)},
		"by the second":        {sign(t, robin, unsigned, crypto.SHA256), nil, "robin <robin@example.com>"},
		"unsigned":             {unsigned, signature.ErrUnsigned, "not signed"},
		"by a stranger":        {sign(t, stranger, unsigned, crypto.SHA256), signature.ErrStranger, fmt.Sprintf("%X, which is not among the given keys", stranger.PrimaryKey.Fingerprint)},
		"tampered":             {bytes.Replace(good, []byte("Body"), []byte("Evil"), 1), signature.ErrInvalid, "did not sign this"},
		"by an expired key":    {byShort, signature.ErrStranger, "when it was not valid"},
		"by a revoked key":     {byRevoked, signature.ErrStranger, "is revoked"},
		"not even a signature": {bytes.Replace(good, []byte("gpgsig -----BEGIN PGP SIGNATURE-----\n"), []byte("gpgsig -----BEGIN PGP SIGNATURE-----\n x\n"), 1), signature.ErrInvalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := keys.Commit(c.content)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("got %q, %v, want %v", signer, err, c.err)
			}
			if said := signer.String(); err == nil && !strings.Contains(said, c.words) || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %q, %v, want %q in it", said, err, c.words)
			}
		})
	}
}

func TestOpenPGPKeysAreRefused(t *testing.T) {
	kim := pgpKey(t, "kim")
	var private, binary bytes.Buffer
	w, err := armor.Encode(&private, openpgp.PrivateKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := kim.SerializePrivate(w, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{
		"":                           "no armored key",
		"hello":                      "no armored key",
		private.String():             "PRIVATE KEY BLOCK",
		string(export(t, kim)[:200]): "no end",
	} {
		if _, err := signature.ParseKeys(map[string][]byte{"x.asc": []byte(content)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := kim.SerializePrivate(&binary, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := signature.ParseKeys(map[string][]byte{"x.gpg": binary.Bytes()}); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("private key in binary: %v", err)
	}
	binary.Reset()
	if err := kim.Serialize(&binary); err != nil {
		t.Fatal(err)
	}
	if _, err := signature.ParseKeys(map[string][]byte{"x.gpg": binary.Bytes()}); err != nil {
		t.Errorf("public key in binary: %v", err)
	}
}

// What gpg itself signs, where it is installed, is read as what the tests above sign.
func TestOpenPGPByGPG(t *testing.T) {
	if _, err := exec.LookPath("gpg"); err != nil {
		return // the tests above need no gpg
	}
	home, err := os.MkdirTemp("", "gpg") // not t.TempDir: the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	r := newRepository(t)
	r.env = append(r.env, "GNUPGHOME="+home)
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = r.env
		_ = cmd.Run()
		_ = os.RemoveAll(home)
	})
	for _, name := range []string{"kim", "stranger"} {
		r.run(nil, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", name+" <"+name+"@example.com>", "ed25519", "default", "never")
	}
	r.git("config", "user.signingKey", "kim@example.com")
	r.env = append(r.env, "GIT_COMMITTER_DATE=")
	keys, err := signature.ParseKeys(map[string][]byte{"kim.asc": r.run(nil, "gpg", "--armor", "--export", "kim@example.com")})
	if err != nil {
		t.Fatal(err)
	}
	good := r.commit("-S")
	if signer, err := keys.Commit(good); err != nil || signer.Name != "kim <kim@example.com>" {
		t.Errorf("commit: %q, %v", signer, err)
	}
	if signer, err := keys.Commit(bytes.Replace(good, []byte("Body"), []byte("Evil"), 1)); !errors.Is(err, signature.ErrInvalid) {
		t.Errorf("tampered commit: %q, %v", signer, err)
	}
	r.git("tag", "-s", "-m", "First", "v1")
	if signer, err := keys.Tag(r.object("tag", "v1"), "v1", r.head()); err != nil || signer.Name != "kim <kim@example.com>" {
		t.Errorf("tag: %q, %v", signer, err)
	}
	if err := os.WriteFile(home+"/gpg.conf", []byte("digest-algo SHA1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if signer, err := keys.Commit(r.commit("-S")); !errors.Is(err, signature.ErrInvalid) || !strings.Contains(err.Error(), "SHA-1, which is too weak") {
		t.Errorf("weak hash: %q, %v", signer, err)
	}
	if err := os.Remove(home + "/gpg.conf"); err != nil {
		t.Fatal(err)
	}
	r.git("config", "user.signingKey", "stranger@example.com")
	if signer, err := keys.Commit(r.commit("-S")); !errors.Is(err, signature.ErrStranger) || !strings.Contains(err.Error(), "OpenPGP key ") {
		t.Errorf("stranger: %q, %v", signer, err)
	}
}
