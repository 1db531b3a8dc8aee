package sigstore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
)

// rejects reports which of the three verifications refused.
func rejects(t *testing.T, image builder.Image, key string) map[string]error {
	t.Helper()
	refused := map[string]error{}
	note := func(what string, err error) {
		if err != nil {
			refused[what] = err
		}
	}
	note("signature", cli.Verify(t.Context(), image.Reference(), key))
	for _, kind := range []string{"slsaprovenance1", "spdxjson"} {
		_, err := cli.VerifyAttestation(t.Context(), image.Reference(), key, kind)
		note(kind, err)
	}
	return refused
}

func TestCosignAcceptsWhatIsAttestedAndNothingElse(t *testing.T) {
	w := newWorld(t)
	image, key := w.attested(t, "shop", "a"), keyFile(t, w.public)
	for what, err := range rejects(t, image, key) {
		t.Errorf("attested image refused: %s: %v", what, err)
	}
	_, stranger := generate(t, policy.Secret{})
	for name, c := range map[string]struct {
		image builder.Image
		key   string
	}{
		"another key":    {image, keyFile(t, stranger)},
		"another digest": {w.image(t, "shop", "b"), key},
	} {
		if refused := rejects(t, c.image, c.key); len(refused) != 3 {
			t.Errorf("%s: only these were refused: %v", name, refused)
		}
	}
	// The statements of one image, attached to another.
	other := w.image(t, "shop", "c")
	for _, a := range w.attachments(t, image) {
		w.attach(t, other, a, a.bundle)
	}
	if refused := rejects(t, other, key); len(refused) != 3 {
		t.Errorf("statements of another image: only these were refused: %v", refused)
	}
}

// The digests are right here: somebody who may push has replaced the statements by changed ones.
func TestChangedStatementsAreRefused(t *testing.T) {
	w := newWorld(t)
	image, key := w.attested(t, "shop", "a"), keyFile(t, w.public)
	for name, change := range map[string]func(t *testing.T, bundle map[string]any){
		"payload": func(t *testing.T, bundle map[string]any) {
			envelope := bundle["dsseEnvelope"].(map[string]any)
			payload, err := base64.StdEncoding.DecodeString(envelope["payload"].(string))
			if err != nil {
				t.Fatal(err)
			}
			// The name of the subject is read by nobody.
			envelope["payload"] = base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte("/shop"), []byte("/shap"), 1))
		},
		"signature": func(t *testing.T, bundle map[string]any) {
			signature := bundle["dsseEnvelope"].(map[string]any)["signatures"].([]any)[0].(map[string]any)
			signed, err := base64.StdEncoding.DecodeString(signature["sig"].(string))
			if err != nil {
				t.Fatal(err)
			}
			signed[len(signed)/2] ^= 1
			signature["sig"] = base64.StdEncoding.EncodeToString(signed)
		},
	} {
		t.Run(name, func(t *testing.T) {
			other := w.image(t, "changed-"+name, "a")
			if other.Digest != image.Digest {
				t.Fatalf("the same program made %s and %s", other.Digest, image.Digest)
			}
			for _, a := range w.attachments(t, image) {
				var bundle map[string]any
				if err := json.Unmarshal(a.bundle, &bundle); err != nil {
					t.Fatal(err)
				}
				change(t, bundle)
				encoded, err := json.Marshal(bundle)
				if err != nil {
					t.Fatal(err)
				}
				w.attach(t, other, a, encoded)
			}
			if refused := rejects(t, other, key); len(refused) != 3 {
				t.Errorf("only these were refused: %v", refused)
			}
			_, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), other.Reference(), w.requirement())
			if !errors.Is(err, sigstore.ErrChanged) {
				t.Errorf("the verifier says %v", err)
			}
		})
	}
}

// One byte of each manifest and each bundle is changed on the registry's disk. That of the signature alone is not held
// against cosign verify, which takes any statement about the image for a signature.
func TestCosignRefusesEachChangedByte(t *testing.T) {
	w := newWorld(t)
	image, key := w.attested(t, "shop", "a"), keyFile(t, w.public)
	for _, a := range w.attachments(t, image) {
		kind := a.manifest.Annotations["dev.sigstore.bundle.predicateType"]
		for what, digest := range map[string]string{"manifest": a.descriptor.Digest.Hex, "bundle": a.manifest.Layers[0].Digest.Hex} {
			file := filepath.Join(w.dir, "shop", "blobs", "sha256", digest)
			restore := flip(t, file)
			refused := rejects(t, image, key)
			short := map[string]string{sigstore.PredicateProvenance: "slsaprovenance1", sigstore.PredicateSBOM: "spdxjson", sigstore.PredicateSignature: ""}[kind]
			if short != "" && refused[short] == nil {
				t.Errorf("%s of %s with another byte is accepted", what, kind)
			}
			_, err := sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), image.Reference(), w.requirement())
			if (kind != sigstore.PredicateSBOM) != (err != nil) {
				t.Errorf("%s of %s with another byte: the verifier says %v", what, kind, err)
			}
			restore()
		}
	}
	for what, err := range rejects(t, image, key) {
		t.Errorf("restored image refused: %s: %v", what, err)
	}
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, file string) (restore func()) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed := bytes.Clone(content)
	changed[len(changed)/2] ^= 1
	write(changed)
	return func() { write(content) }
}

func TestCosignReadsTheProvenance(t *testing.T) {
	w := newWorld(t)
	image := w.attested(t, "shop", "a")
	printed, err := cli.VerifyAttestation(t.Context(), image.Reference(), keyFile(t, w.public), "slsaprovenance1")
	if err != nil {
		t.Fatal(err)
	}
	var envelope struct{ Payload string }
	if err := json.Unmarshal(printed, &envelope); err != nil {
		t.Fatalf("%v in %s", err, printed)
	}
	statement, err := base64.StdEncoding.DecodeString(envelope.Payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"_type":"https://in-toto.io/Statement/v1"`, image.Digest[len("sha256:"):], `"buildType":"` + sigstore.BuildType + `"`,
		`"repository":"https://git.example.com/acme/shop.git"`, `"ref":"refs/heads/main"`, `"pipeline":".pipeline.yml"`, `"stage":"image"`,
		`"gitCommit":"` + commit + `"`, `"uri":"oci://registry.example.com/base"`, `"uri":"pkg:golang/toolchain@1.`,
		`"id":"` + sigstore.DefaultBuilder + `/runc-root"`, `"invocationId":"run-1"`, `"startedOn":"2026-07-01T12:01:00Z"`, `"finishedOn":"2026-07-01T12:02:00Z"`,
	} {
		if !strings.Contains(string(statement), want) {
			t.Errorf("no %s in\n%s", want, statement)
		}
	}
}

// A key that cosign generates signs here, too.
func TestSignerTakesTheKeyOfCosign(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	prefix := filepath.Join(dir, "team")
	if _, err := cli.Run(t.Context(), []string{"COSIGN_PASSWORD=hunter2"}, "generate-key-pair", "--output-key-prefix", prefix); err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(prefix + ".key")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sigstore.NewSigner(sigstore.SignerOptions{Key: policy.NewSecret(string(private)), Password: policy.NewSecret("hunter2")})
	if err != nil {
		t.Fatal(err)
	}
	image := w.image(t, "shop", "a")
	if err := signer.Attest(t.Context(), subject(image)); err != nil {
		t.Fatal(err)
	}
	for what, err := range rejects(t, image, prefix+".pub") {
		t.Errorf("%s: %v", what, err)
	}
}

// Who signs with cosign itself is verified here, in its new format and in the one with tags.
func TestVerifierReadsWhatCosignSigns(t *testing.T) {
	w := newWorld(t)
	password := policy.NewSecret("correct horse")
	private, public := generate(t, password)
	key := filepath.Join(t.TempDir(), "cosign.key")
	if err := os.WriteFile(key, []byte(private.Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	predicate := filepath.Join(t.TempDir(), "provenance.json")
	if err := os.WriteFile(predicate, []byte(`{"buildDefinition":{"buildType":"https://example.com/ci","externalParameters":{},
		"resolvedDependencies":[{"uri":"git+https://git.example.com/acme/shop@refs/heads/main","digest":{"gitCommit":"`+commit+`"}}]},
		"runDetails":{"builder":{"id":"https://ci.example.com/hardened"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	requirement := policy.Requirement{Policy: "ci", Keys: []policy.Key{{Name: "ci", PEM: string(public)}}}
	proven := requirement
	proven.Provenance = &policy.Provenance{Sources: []string{"https://git.example.com/acme/shop.git"}, Builders: []string{"https://ci.example.com/*"}}
	for name, format := range map[string]string{"bundles": "--new-bundle-format=true", "tags": "--new-bundle-format=false"} {
		t.Run(name, func(t *testing.T) {
			image := w.image(t, "foreign", name)
			verifier := sigstore.NewVerifier(sigstore.VerifierOptions{})
			for _, args := range [][]string{
				{"sign", "--key", key, format, "--tlog-upload=false", "--use-signing-config=false", image.Reference()},
				{"attest", "--key", key, format, "--tlog-upload=false", "--use-signing-config=false", "--type", "slsaprovenance1", "--predicate", predicate, image.Reference()},
			} {
				if _, err := cli.Run(t.Context(), []string{"COSIGN_PASSWORD=" + password.Reveal()}, args...); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := verifier.Verify(t.Context(), image.Reference(), requirement); err != nil {
				t.Error(err)
			}
			evidence, err := verifier.Verify(t.Context(), image.Reference(), proven)
			if err != nil || evidence.Source != "https://git.example.com/acme/shop" || evidence.Commit != commit {
				t.Errorf("evidence %+v, %v", evidence, err)
			}
			if _, err := verifier.Verify(t.Context(), image.Reference(), w.requirement()); err == nil {
				t.Error("accepted for a key that has not signed it")
			}
		})
	}
}
