package undo

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// ErrSignature says that a request was not signed by the key that was asked.
var ErrSignature = errors.New("the signature does not fit the agent's key")

// domain keeps a signature from being taken for one over something else.
const domain = "slipway.dev/v1alpha1 RevertRequest\n"

// Canonical returns the bytes that are signed: the line
// "slipway.dev/v1alpha1 RevertRequest", then the request without its signature
// as JSON with sorted keys, without white space, with empty optional fields left
// out, times as RFC 3339 in UTC and whole seconds, and without HTML escapes.
func Canonical(r v1alpha1.RevertRequest) ([]byte, error) {
	r.Signature = ""
	for _, s := range []string{r.URL, r.Branch, r.Cluster, r.App, r.Environment, r.Path, r.Message, r.Why} {
		if !utf8.ValidString(s) {
			return nil, errors.New("revert request: a field is not UTF-8, so its JSON is not unique")
		}
	}
	plain, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("revert request: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(plain, &fields); err != nil {
		return nil, fmt.Errorf("revert request: %w", err)
	}
	out := bytes.NewBufferString(domain)
	encoder := json.NewEncoder(out) // sorts the keys of maps
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(fields); err != nil {
		return nil, fmt.Errorf("revert request: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Sign sets the signature: Ed25519 over Canonical, in standard base64.
func Sign(key ed25519.PrivateKey, r *v1alpha1.RevertRequest) error {
	message, err := Canonical(*r)
	if err != nil {
		return err
	}
	r.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, message))
	return nil
}

// Verify fails with ErrSignature unless key signed exactly r.
func Verify(key ed25519.PublicKey, r v1alpha1.RevertRequest) error {
	message, err := Canonical(r)
	if err != nil {
		return err
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(r.Signature)
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, message, signature) {
		return fmt.Errorf("revert request of cluster %q: %w", r.Cluster, ErrSignature)
	}
	return nil
}

// FormatPublicKey returns the file of a public key: one line of standard base64.
func FormatPublicKey(key ed25519.PublicKey) []byte {
	return []byte(base64.StdEncoding.EncodeToString(key) + "\n")
}

// ParsePublicKey reads a file of FormatPublicKey, or a PEM block PUBLIC KEY (PKIX, as openssl writes it).
func ParsePublicKey(content []byte) (ed25519.PublicKey, error) {
	if block, _ := pem.Decode(content); block != nil {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		if key, ok := key.(ed25519.PublicKey); ok {
			return key, nil
		}
		return nil, errors.New("public key: not Ed25519")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(content)))
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("public key: want a PEM block PUBLIC KEY, or 32 bytes in base64")
	}
	return raw, nil
}
