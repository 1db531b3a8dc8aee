package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSH signs commits as `git commit -S` does with gpg.format=ssh. Ed25519 makes the same signature over the same commit each
// time, so that commits that are composed twice are one.
type SSH struct{ key ssh.Signer }

// NewSSH signs with key.
func NewSSH(key ed25519.PrivateKey) (SSH, error) {
	if len(key) != ed25519.PrivateKeySize {
		return SSH{}, errors.New("key that signs commits: not an Ed25519 key")
	}
	signer, err := ssh.NewSignerFromSigner(key)
	return SSH{signer}, err
}

// Sign returns the armored signature over what Git stores of a commit without one (OpenSSH, PROTOCOL.sshsig).
func (s SSH) Sign(payload []byte) (string, error) {
	sum := sha512.Sum512(payload)
	message := sshMessage{Namespace: namespace, HashAlgorithm: "sha512", Hash: sum[:]}
	copy(message.Magic[:], magic)
	made, err := s.key.Sign(strings.NewReader(""), ssh.Marshal(message)) // Ed25519 takes nothing from chance
	if err != nil {
		return "", fmt.Errorf("signing a commit: %w", err)
	}
	content := sshSignature{
		Version: 1, PublicKey: s.key.PublicKey().Marshal(), Namespace: namespace, HashAlgorithm: "sha512", Signature: ssh.Marshal(made),
	}
	copy(content.Magic[:], magic)
	return string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: ssh.Marshal(content)})), nil
}

// AllowedSigner is the line of an allowed signers file that lets a key sign commits as principal.
func AllowedSigner(principal string, key ed25519.PublicKey) (string, error) {
	public, err := ssh.NewPublicKey(key)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s namespaces=%q %s", principal, namespace, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))), nil
}

// Admits says why commits that key signs at a time would not count; nil if they would.
func (k Keys) Admits(key ed25519.PublicKey, at time.Time) error {
	public, err := ssh.NewPublicKey(key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStranger, err)
	}
	why := "which is not among the allowed signers"
	for _, signer := range k.ssh {
		if !bytes.Equal(signer.key, public.Marshal()) {
			continue
		}
		if why = signer.refuses(at); why == "" {
			return nil
		}
	}
	return fmt.Errorf("%w: SSH key %s, %s", ErrStranger, ssh.FingerprintSHA256(public), why)
}
