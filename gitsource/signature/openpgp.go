package signature

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

func addArmored(to openpgp.EntityList, content []byte) (openpgp.EntityList, error) {
	before := len(to)
	for rest := content; ; {
		start := bytes.Index(rest, []byte("-----BEGIN PGP "))
		if start < 0 {
			break
		}
		rest = rest[start:]
		end := bytes.Index(rest, []byte("-----END PGP "))
		if end < 0 {
			return nil, errors.New("an armored block has no end")
		}
		if stop := bytes.IndexByte(rest[end:], '\n'); stop >= 0 {
			end += stop + 1
		} else {
			end = len(rest)
		}
		block, err := armor.Decode(bytes.NewReader(rest[:end]))
		if err != nil {
			return nil, fmt.Errorf("no armored key: %w", err)
		}
		if block.Type != openpgp.PublicKeyType {
			return nil, fmt.Errorf("it holds a %s; want a %s (gpg --armor --export)", block.Type, openpgp.PublicKeyType)
		}
		keys, err := io.ReadAll(block.Body)
		if err != nil {
			return nil, fmt.Errorf("no armored key: %w", err)
		}
		if to, err = addBinary(to, keys); err != nil {
			return nil, err
		}
		rest = rest[end:]
	}
	if len(to) == before {
		return nil, errors.New("there is no armored key in it (gpg --armor --export)")
	}
	return to, nil
}

func addBinary(to openpgp.EntityList, content []byte) (openpgp.EntityList, error) {
	entities, err := openpgp.ReadKeyRing(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("no OpenPGP key: %w", err)
	}
	for _, entity := range entities {
		if entity.PrivateKey != nil {
			return nil, errors.New("it holds a private key; give the public one (gpg --armor --export)")
		}
	}
	return append(to, entities...), nil
}

// verifyPGP checks an OpenPGP signature.
func (k Keys) verifyPGP(o signed) (Signer, error) {
	block, err := armor.Decode(strings.NewReader(o.signature))
	if err != nil {
		return Signer{}, fmt.Errorf("%w: it is no OpenPGP signature: %w", ErrInvalid, err)
	}
	encoded, err := io.ReadAll(block.Body)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: it is no OpenPGP signature: %w", ErrInvalid, err)
	}
	made, err := soleSignature(encoded)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	key := "OpenPGP key " + issuer(made)
	if len(k.pgp.KeysByIdUsage(*made.IssuerKeyId, packet.KeyFlagSign)) == 0 {
		return Signer{}, fmt.Errorf("%w: signed by %s, which is not among the given keys", ErrStranger, key)
	}
	at := func() time.Time { return made.CreationTime }
	entity, err := openpgp.CheckDetachedSignature(k.pgp, bytes.NewReader(o.payload), bytes.NewReader(encoded), &packet.Config{Time: at})
	switch {
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return Signer{}, fmt.Errorf("%w: signed by %s, which is revoked", ErrStranger, key)
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return Signer{}, fmt.Errorf("%w: signed by %s on %s, when it was not valid", ErrStranger, key, made.CreationTime.UTC().Format(time.RFC3339))
	case err != nil:
		return Signer{}, fmt.Errorf("%w: %s did not sign this: %w", ErrInvalid, key, err)
	}
	if algorithm := entity.PrimaryKey.PubKeyAlgo; algorithm == packet.PubKeyAlgoDSA {
		return Signer{}, fmt.Errorf("%w: %s is a DSA key, which is too weak", ErrStranger, key)
	}
	return Signer{Name: nameOf(entity), Key: fmt.Sprintf("OpenPGP key %X", entity.PrimaryKey.Fingerprint)}, nil
}

// soleSignature reads what must be one signature over binary data, by a hash that is not weak.
func soleSignature(encoded []byte) (*packet.Signature, error) {
	packets := packet.NewReader(bytes.NewReader(encoded))
	first, err := packets.Next()
	if err != nil {
		return nil, fmt.Errorf("it is no OpenPGP signature: %w", err)
	}
	made, ok := first.(*packet.Signature)
	if !ok || made.IssuerKeyId == nil {
		return nil, errors.New("it is no OpenPGP signature that names its key")
	}
	if _, err := packets.Next(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one OpenPGP signature")
	}
	switch made.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
	default:
		return nil, fmt.Errorf("it uses the hash function %s, which is too weak", made.Hash)
	}
	if made.SigType != packet.SigTypeBinary {
		return nil, errors.New("it is not over binary data, as those of Git are")
	}
	return made, nil
}

func issuer(made *packet.Signature) string {
	if len(made.IssuerFingerprint) > 0 {
		return fmt.Sprintf("%X", made.IssuerFingerprint)
	}
	return fmt.Sprintf("%016X", *made.IssuerKeyId)
}

func nameOf(entity *openpgp.Entity) string {
	if identity := entity.PrimaryIdentity(); identity != nil {
		return identity.Name
	}
	return "without a user id"
}
