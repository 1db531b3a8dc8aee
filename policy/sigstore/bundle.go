package sigstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// Formats: https://github.com/sigstore/protobuf-specs (bundle), https://github.com/secure-systems-lab/dsse (envelope),
// https://github.com/in-toto/attestation (statement).
const (
	bundleMediaType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	intotoMediaType  = "application/vnd.in-toto+json"
	emptyMediaType   = "application/vnd.oci.empty.v1+json"
	annotationType   = "dev.sigstore.bundle.predicateType"
	annotationInside = "dev.sigstore.bundle.content"
	annotationRun    = "dev.slipway.run" // that the provenance is of
)

// bundle is the part of a Sigstore bundle that a signature by a key needs.
type bundle struct {
	MediaType            string               `json:"mediaType"`
	VerificationMaterial verificationMaterial `json:"verificationMaterial"`
	Envelope             json.RawMessage      `json:"dsseEnvelope"`
}

type verificationMaterial struct {
	PublicKey struct {
		Hint string `json:"hint"`
	} `json:"publicKey"`
}

// statement is what is read of an in-toto Statement, v1 or v0.1.
type statement struct {
	Type    string `json:"_type"`
	Subject []struct {
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// about reports whether the statement has digest among its subjects.
func (s statement) about(digest v1.Hash) bool {
	for _, subject := range s.Subject {
		if subject.Digest[digest.Algorithm] == digest.Hex {
			return true
		}
	}
	return false
}

// newStatement returns the bytes that are signed, once: nothing ever encodes them again.
func newStatement(repository string, digest v1.Hash, predicateType string, predicate *structpb.Struct) ([]byte, error) {
	s := &intoto.Statement{
		Type:          intoto.StatementTypeUri,
		Subject:       []*intoto.ResourceDescriptor{{Name: repository, Digest: map[string]string{digest.Algorithm: digest.Hex}}},
		PredicateType: predicateType,
		Predicate:     predicate,
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("statement %s: %w", predicateType, err)
	}
	encoded, err := protojson.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("statement %s: %w", predicateType, err)
	}
	// protojson spaces its output differently from build to build of a program.
	var compact bytes.Buffer
	if err := json.Compact(&compact, encoded); err != nil {
		return nil, fmt.Errorf("statement %s: %w", predicateType, err)
	}
	return compact.Bytes(), nil
}

// sign wraps payload in an envelope and that in a bundle.
func (k *signingKey) sign(payload []byte) ([]byte, error) {
	signed, err := dsse.WrapSigner(k, intotoMediaType).SignMessage(bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	b := bundle{MediaType: bundleMediaType, Envelope: signed}
	b.VerificationMaterial.PublicKey.Hint = k.public.hint
	return json.Marshal(b)
}

// open returns the statement of an envelope that one of keys has signed. hint names the key that it claims to be by;
// it decides nothing and tells a changed envelope from one of a stranger.
func open(content []byte, hint string, keys []publicKey) (statement, publicKey, error) {
	for _, key := range keys {
		var payload []byte
		check := dsse.WrapVerifier(key.verifier, dsse.WithExpectedPayloadType(intotoMediaType), dsse.WithDecodedPayload(&payload))
		if check.VerifySignature(bytes.NewReader(content), nil) != nil {
			continue
		}
		var s statement
		if err := json.Unmarshal(payload, &s); err != nil {
			return statement{}, publicKey{}, fmt.Errorf("%w: what it signs is no in-toto statement", ErrChanged)
		}
		if s.Type != intoto.StatementTypeUri && s.Type != "https://in-toto.io/Statement/v0.1" {
			return statement{}, publicKey{}, fmt.Errorf("%w: statement type %q", ErrChanged, s.Type)
		}
		return s, key, nil
	}
	for _, key := range keys {
		if hint == key.hint {
			return statement{}, publicKey{}, ErrChanged
		}
	}
	return statement{}, publicKey{}, ErrOtherKey
}

// referrer is the manifest that ties a bundle to an image.
type referrer struct {
	manifest []byte
	digest   v1.Hash
	blobs    []blob // the empty configuration and the bundle
}

// blob is content with its digest.
type blob struct {
	content []byte
	digest  v1.Hash
}

func newBlob(content []byte) blob {
	sum := sha256.Sum256(content)
	return blob{content: content, digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
}

func (b blob) descriptor(mediaType types.MediaType) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: b.digest, Size: int64(len(b.content))}
}

// newReferrer names no time: the same bundle for the same image is the same manifest.
func newReferrer(subject v1.Descriptor, annotations map[string]string, content []byte) (referrer, error) {
	config, layer := newBlob([]byte("{}")), newBlob(content)
	encoded, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  bundleMediaType,
		Config:        config.descriptor(emptyMediaType),
		Layers:        []v1.Descriptor{layer.descriptor(bundleMediaType)},
		Subject:       &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations:   annotations,
	})
	if err != nil {
		return referrer{}, fmt.Errorf("referrer: %w", err)
	}
	return referrer{manifest: encoded, digest: newBlob(encoded).digest, blobs: []blob{config, layer}}, nil
}

// RawManifest and MediaType make a referrer something that the registry client can put.
func (r referrer) RawManifest() ([]byte, error) { return r.manifest, nil }

// MediaType of the manifest.
func (r referrer) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
