// Package proof holds what the server attested against the code of cosign itself, as a third party would that never heard of
// Slipway.
//
// The writer's own verifier would share the writer's mistakes. So before an image is promoted, cosign's library reads it from
// the registry and has to accept each of its statements. It is asked once for each image, on the server alone: agents verify
// by package sigstore, which is smaller by 10 MB.
package proof

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Options for New.
type Options struct {
	PublicKey []byte         // PEM, of what the server signs with
	Keychain  authn.Keychain // logins to registries; nil is anonymous everywhere
	// Statements are the predicate types that an image has to have.
	Statements []string
}

// Proof checks images. It may be used in parallel.
type Proof struct {
	verifier   signature.Verifier
	keychain   authn.Keychain
	statements []string
	transport  http.RoundTripper
}

// New reads the key.
func New(o Options) (*Proof, error) {
	key, err := cryptoutils.UnmarshalPEMToPublicKey(o.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("proof: public key: %w", err)
	}
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("proof: public key: %w", err)
	}
	if len(o.Statements) == 0 {
		return nil, errors.New("proof: Options.Statements is empty, so nothing would be proved")
	}
	if o.Keychain == nil {
		o.Keychain = authn.NewMultiKeychain()
	}
	return &Proof{verifier: verifier, keychain: o.Keychain, statements: o.Statements, transport: transport()}, nil
}

// transport bounds how long a registry may be silent.
func transport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	t.ResponseHeaderTimeout = 20 * time.Second
	return t
}

// ErrUnproved says that cosign does not accept what an image has, or that a statement is missing. A registry that cannot be
// read is another error.
var ErrUnproved = errors.New("not accepted by cosign")

// Check fails unless cosign accepts, for the digest of reference (REPOSITORY@sha256:...) and by the key, each of the statements.
func (p *Proof) Check(ctx context.Context, reference string) error {
	image, err := name.NewDigest(reference)
	if err != nil {
		return fmt.Errorf("image %s: %w (want REPOSITORY@sha256:...)", reference, err)
	}
	accepted, _, err := cosign.VerifyImageAttestations(ctx, image, &cosign.CheckOpts{
		SigVerifier: p.verifier, NewBundleFormat: true,
		TrustedMaterial: &root.BaseTrustedMaterial{}, IgnoreTlog: true, IgnoreSCT: true, Offline: true, // keys alone: no certificates, no log
		RegistryClientOpts: []ociremote.Option{ociremote.WithRemoteOptions(
			remote.WithContext(ctx), remote.WithAuthFromKeychain(p.keychain), remote.WithTransport(p.transport),
		)},
	})
	var none *cosign.ErrNoMatchingAttestations
	switch {
	case errors.As(err, &none):
		return fmt.Errorf("image %s: %w: %w", reference, ErrUnproved, err)
	case err != nil:
		return fmt.Errorf("image %s: its statements cannot be read: %w", reference, err)
	}
	there := map[string]bool{}
	for _, a := range accepted {
		kind, err := predicateType(a)
		if err != nil {
			return fmt.Errorf("image %s: %w: %w", reference, ErrUnproved, err)
		}
		there[kind] = true
	}
	for _, want := range p.statements {
		if !there[want] {
			return fmt.Errorf("image %s: %w: no statement of type %s by this key", reference, ErrUnproved, want)
		}
	}
	return nil
}

// predicateType reads what a statement is about out of its envelope.
func predicateType(a oci.Signature) (string, error) {
	payload, err := a.Payload()
	if err != nil {
		return "", err
	}
	var envelope struct {
		PayloadType string `json:"payloadType"`
		Payload     string `json:"payload"`
	}
	if err := json.Unmarshal(payload, &envelope); err != nil {
		return "", fmt.Errorf("envelope: %w", err)
	}
	if !strings.HasPrefix(envelope.PayloadType, "application/vnd.in-toto") {
		return "", fmt.Errorf("envelope of type %q: want an in-toto statement", envelope.PayloadType)
	}
	statement, err := base64.StdEncoding.DecodeString(envelope.Payload)
	if err != nil {
		return "", fmt.Errorf("envelope: %w", err)
	}
	var s struct {
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(statement, &s); err != nil {
		return "", fmt.Errorf("statement: %w", err)
	}
	return s.PredicateType, nil
}
