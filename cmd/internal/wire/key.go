package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/slipway-cd/slipway/gitsource/signature"
)

// ReadKey reads an Ed25519 key from a PEM file, as `openssl genpkey -algorithm ed25519` writes it.
func ReadKey(path string) (ed25519.PrivateKey, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("key %s: not a PEM file", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key %s: not a PKCS #8 private key", path)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key %s: not an Ed25519 key", path)
	}
	return private, nil
}

// NewKey makes a key, and the PEM file that ReadKey reads.
func NewKey() (key ed25519.PrivateKey, file []byte, err error) {
	_, key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), err
}

// PublicKey is the public half of key; nil for none.
func PublicKey(key ed25519.PrivateKey) ed25519.PublicKey {
	if key == nil {
		return nil
	}
	public, _ := key.Public().(ed25519.PublicKey)
	return public
}

// Signing is how commits are signed with key; nil for not at all.
func Signing(key ed25519.PrivateKey) (func(payload []byte) (string, error), error) {
	if key == nil {
		return nil, nil
	}
	signer, err := signature.NewSSH(key)
	if err != nil {
		return nil, errors.Join(err, errors.New("make one with 'openssl genpkey -algorithm ed25519'"))
	}
	return signer.Sign, nil
}
