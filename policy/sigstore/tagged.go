package sigstore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	registryhttp "github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// The format of cosign before version 3: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
const (
	simpleSigningType   = "application/vnd.dev.cosign.simplesigning.v1+json"
	dsseEnvelopeType    = "application/vnd.dsse.envelope.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// tagged reads what cosign attached behind the tags sha256-HEX.sig and .att. An error means that nobody knows.
func (c *check) tagged(ctx context.Context, r *repository) error {
	if !c.signed {
		err := c.layers(ctx, r, ".sig", simpleSigningType, func(layer v1.Descriptor, payload []byte) {
			c.simple(payload, layer.Annotations[signatureAnnotation])
		}, func(err error) { c.signature.note(2, ErrChanged, detailOf(err)) })
		if err != nil {
			return err
		}
	}
	if !c.signed || c.met() {
		return nil
	}
	return c.layers(ctx, r, ".att", dsseEnvelopeType, func(layer v1.Descriptor, envelope []byte) {
		c.consider(envelope, "", PredicateProvenance)
	}, func(err error) { c.provenance.note(2, ErrChanged, detailOf(err)) })
}

// layers reads those of a media type of the image behind a tag; there may be none.
func (c *check) layers(ctx context.Context, r *repository, suffix, mediaType string, read func(v1.Descriptor, []byte), unreadable func(error)) error {
	described, err := r.puller.Get(ctx, r.image.Context().Tag(r.digest.Algorithm+"-"+r.digest.Hex+suffix))
	var answer *registryhttp.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("image %s: signatures behind a tag cannot be read: %w", r.image, err)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(described.Manifest, &manifest); err != nil {
		unreadable(ErrChanged)
		return nil
	}
	for _, layer := range manifest.Layers {
		if string(layer.MediaType) != mediaType {
			continue
		}
		if c.looked++; c.looked > maxReferrers {
			return fmt.Errorf("image %s: none of the first %d signatures is what the policy asks for", r.image, maxReferrers)
		}
		blob, err := r.blob(ctx, layer.Digest)
		if errors.Is(err, ErrChanged) {
			unreadable(err)
			continue
		}
		if err != nil {
			return err
		}
		read(layer, blob)
	}
	return nil
}

// simple counts a signature of a payload that names the image's digest.
func (c *check) simple(payload []byte, encoded string) {
	signed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		c.signature.note(2, ErrChanged, "")
		return
	}
	for _, key := range c.keys {
		if !key.verifies(signed, payload) {
			continue
		}
		var p struct {
			Critical struct {
				Type  string `json:"type"`
				Image struct {
					Digest string `json:"docker-manifest-digest"`
				} `json:"image"`
			} `json:"critical"`
		}
		if json.Unmarshal(payload, &p) != nil || p.Critical.Image.Digest != c.digest.String() || p.Critical.Type != "cosign container image signature" {
			c.signature.note(3, ErrOtherDigest, "")
			continue
		}
		c.sign(key)
		return
	}
	c.signature.note(1, ErrOtherKey, "")
}
