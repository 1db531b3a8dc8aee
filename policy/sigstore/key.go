package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/slipway-cd/slipway/policy"
)

// GenerateKey makes a key pair in PEM. With a password the private key has the encrypted form that cosign reads, without
// one it is plain PKCS #8.
func GenerateKey(password policy.Secret) (private policy.Secret, public []byte, err error) {
	key, public, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), passwordFunc(password))
	if err != nil {
		return policy.Secret{}, nil, fmt.Errorf("signing key: %w", err)
	}
	return policy.NewSecret(string(key)), public, nil
}

func passwordFunc(password policy.Secret) cryptoutils.PassFunc {
	if password.Empty() {
		return nil
	}
	return cryptoutils.StaticPasswordFunc([]byte(password.Reveal()))
}

// signingKey signs so that equal messages have equal signatures (RFC 6979): an attestation that is made again after a
// crash is the same bytes, which a registry stores once.
type signingKey struct {
	private *ecdsa.PrivateKey
	public  publicKey
}

func parseSigningKey(private, password policy.Secret) (*signingKey, error) {
	if private.Empty() {
		return nil, errors.New("signing key: empty (make one with 'cosign generate-key-pair', or let slipway up make one)")
	}
	parsed, err := cryptoutils.UnmarshalPEMToPrivateKey([]byte(private.Reveal()), passwordFunc(password))
	if err != nil {
		// The parser's message could repeat what it was given.
		return nil, errors.New("signing key: cannot be read (want PEM: ENCRYPTED SIGSTORE PRIVATE KEY with its password, or PRIVATE KEY)")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("signing key: %T is not supported (use ECDSA P-256, which cosign generates)", parsed)
	}
	public, err := newPublicKey("", key.Public())
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return &signingKey{private: key, public: public}, nil
}

// PublicKey implements signature.Signer.
func (k *signingKey) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return k.private.Public(), nil
}

// SignMessage implements signature.Signer.
func (k *signingKey) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, message); err != nil {
		return nil, err
	}
	return k.private.Sign(nil, hash.Sum(nil), crypto.SHA256)
}

// publicKey is one of those that a signature may be by.
type publicKey struct {
	name     string // as the policy calls it
	hint     string // base64 of the SHA-256 of its DER form, which bundles name their key by
	pem      []byte
	verifier signature.Verifier
}

func parsePublicKey(key policy.Key) (publicKey, error) {
	parsed, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(key.PEM))
	if err != nil {
		return publicKey{}, fmt.Errorf("key %q: not a public key in PEM: %w", key.Name, err)
	}
	public, err := newPublicKey(key.Name, parsed)
	if err != nil {
		return publicKey{}, fmt.Errorf("key %q: %w", key.Name, err)
	}
	return public, nil
}

func newPublicKey(name string, key crypto.PublicKey) (publicKey, error) {
	der, err := cryptoutils.MarshalPublicKeyToDER(key)
	if err != nil {
		return publicKey{}, err
	}
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return publicKey{}, err
	}
	sum := sha256.Sum256(der)
	return publicKey{
		name: name, hint: base64.StdEncoding.EncodeToString(sum[:]), verifier: verifier, pem: cryptoutils.PEMEncode(cryptoutils.PublicKeyPEMType, der),
	}, nil
}

// verifies reports whether signed is a signature of message by k.
func (k publicKey) verifies(signed, message []byte) bool {
	return k.verifier.VerifySignature(bytes.NewReader(signed), bytes.NewReader(message)) == nil
}
