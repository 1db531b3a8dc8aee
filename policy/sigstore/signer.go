package sigstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/slipway-cd/slipway/policy"
)

// SignerOptions for NewSigner.
type SignerOptions struct {
	// Key is a private ECDSA P-256 key in PEM: encrypted as cosign does it, or plain.
	Key      policy.Secret
	Password policy.Secret // of the Key; empty for a plain one
	Logins   Logins        // of the registries that are pushed to
	// Builder is the beginning of builder.id in the provenance; default DefaultBuilder.
	Builder string
	Version string // of Slipway
	// Failpoint is called before each write, for tests that end there; nil for none.
	Failpoint func(name string)
}

// Failpoints of Attest, in their order.
const (
	FailpointSBOM       = "attest-before-sbom"
	FailpointProvenance = "attest-before-provenance"
	FailpointSignature  = "attest-before-signature"
)

// Signer signs images and what is known of them. It may be used in parallel.
type Signer struct {
	key       *signingKey
	logins    Logins
	builder   string
	version   string
	transport http.RoundTripper
	failpoint func(string)
}

// NewSigner reads the key. Neither it nor its password is ever part of an error or a log line.
func NewSigner(o SignerOptions) (*Signer, error) {
	key, err := parseSigningKey(o.Key, o.Password)
	if err != nil {
		return nil, err
	}
	s := &Signer{key: key, logins: o.Logins, builder: o.Builder, version: o.Version, transport: transport(), failpoint: o.Failpoint}
	if s.builder == "" {
		s.builder = DefaultBuilder
	}
	if s.failpoint == nil {
		s.failpoint = func(string) {}
	}
	return s, nil
}

// PublicKey returns what others verify with, in PEM.
func (s *Signer) PublicKey() []byte { return s.key.public.pem }

// ErrUnattestable says that Attest will fail again, however often it is called: the subject contradicts itself, or the
// image is not there or not of a Go program. Other errors pass.
var ErrUnattestable = errors.New("cannot be attested")

// Attest attaches SBOM, provenance and signature to an image, in this order, each unless it is there. It may be called
// again after it returned and after it was killed anywhere: it adds what is missing and nothing else.
func (s *Signer) Attest(ctx context.Context, subject Subject) error {
	subject, job, err := subject.complete()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnattestable, err)
	}
	r, err := newRepository(ctx, subject.Image.Reference(), s.logins, s.transport)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnattestable, err)
	}
	there, err := s.attached(ctx, r, subject)
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	if there[PredicateSBOM] && there[PredicateProvenance] && there[PredicateSignature] {
		return nil
	}
	described, err := r.puller.Head(ctx, r.image)
	if err != nil {
		return lasting(fmt.Errorf("attest: image %s: %w", r.image, err))
	}
	var programs []program
	if !there[PredicateSBOM] || !there[PredicateProvenance] {
		if programs, err = r.programs(ctx); err != nil {
			return lasting(fmt.Errorf("attest: %w", err))
		}
	}
	for _, step := range []struct {
		predicateType, failpoint string
		predicate                func() (*structpb.Struct, error)
	}{
		{PredicateSBOM, FailpointSBOM, func() (*structpb.Struct, error) { return sbom(subject, programs, "slipway-"+s.version) }},
		{PredicateProvenance, FailpointProvenance, func() (*structpb.Struct, error) { return s.provenance(subject, job, programs) }},
		{PredicateSignature, FailpointSignature, func() (*structpb.Struct, error) { return &structpb.Struct{}, nil }},
	} {
		if there[step.predicateType] {
			continue
		}
		item, err := s.item(*described, subject, step.predicateType, step.predicate)
		if err != nil {
			return fmt.Errorf("attest: image %s: %w", r.image, err)
		}
		s.failpoint(step.failpoint)
		if err := r.attach(ctx, item); err != nil {
			return fmt.Errorf("attest: %w", err)
		}
	}
	return nil
}

// lasting adds ErrUnattestable to what the image itself is the cause of, not the registry nor this machine's disk.
func lasting(err error) error {
	var local *fs.PathError
	if errors.Is(content(err), ErrChanged) && !errors.As(err, &local) {
		return fmt.Errorf("%w: %w", ErrUnattestable, err)
	}
	return err
}

// item makes what is attached to the image, ready to be pushed.
func (s *Signer) item(image v1.Descriptor, subject Subject, predicateType string, make func() (*structpb.Struct, error)) (referrer, error) {
	predicate, err := make()
	if err != nil {
		return referrer{}, err
	}
	statement, err := newStatement(subject.Image.Repository, image.Digest, predicateType, predicate)
	if err != nil {
		return referrer{}, err
	}
	signed, err := s.key.sign(statement)
	if err != nil {
		return referrer{}, err
	}
	annotations := map[string]string{annotationType: predicateType, annotationInside: "dsse-envelope"}
	if predicateType == PredicateProvenance {
		annotations[annotationRun] = subject.invocation()
	}
	return newReferrer(image, annotations, signed)
}

// attached says which statements by our own key the image has. Provenance counts if it is of this Run: an image that many
// commits leave as it is has one for each, of which the annotation tells the one to read.
func (s *Signer) attached(ctx context.Context, r *repository, subject Subject) (map[string]bool, error) {
	descriptors, err := r.referrers()
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, d := range descriptors {
		run, said := d.Annotations[annotationRun]
		if there[d.Annotations[annotationType]] || said && run != subject.invocation() {
			continue
		}
		b, err := r.bundle(ctx, d.Digest)
		if errors.Is(err, ErrChanged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		statement, _, err := open(b.envelope, b.hint, []publicKey{s.key.public})
		if err != nil || !statement.about(r.digest) {
			continue
		}
		if statement.PredicateType == PredicateProvenance {
			p, err := readProvenance(statement)
			if err != nil || p.RunDetails.Metadata.InvocationID != subject.invocation() {
				continue
			}
		}
		there[statement.PredicateType] = true
	}
	return there, nil
}
