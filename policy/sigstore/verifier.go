package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-cd/slipway/policy"
)

// VerifierOptions for NewVerifier.
type VerifierOptions struct {
	Logins Logins
	Now    func() time.Time // default time.Now
	// Timeout of one verification; default 8s.
	Timeout time.Duration
	// Size is how many answers are remembered; default 4096.
	Size int
	// Again is how soon an image that was refused is looked at again; default 30s.
	Again time.Duration
	// Rest is how long a registry that did not answer is left alone, so that its images do not hold up those of
	// others; default 3s.
	Rest time.Duration
}

// Verifier holds images against requirements. It may be used in parallel.
type Verifier struct {
	VerifierOptions
	transport http.RoundTripper
	answers   *answers

	mu      sync.Mutex
	resting map[string]rest // by registry
}

// rest is a registry's time of being left alone, and why.
type rest struct {
	until time.Time
	err   error
}

// Evidence is what an image has shown.
type Evidence struct {
	Digest string
	Key    string // name of the key that signed it
	// Of the provenance, where it was required.
	Source  string // URL of the repository
	Commit  string
	Builder string
	Run     string
}

// NewVerifier does no request.
func NewVerifier(o VerifierOptions) *Verifier {
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&o.Timeout, 8 * time.Second}, {&o.Again, 30 * time.Second}, {&o.Rest, 3 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if o.Size <= 0 {
		o.Size = 4096
	}
	return &Verifier{VerifierOptions: o, transport: transport(), answers: newAnswers(o.Size), resting: map[string]rest{}}
}

// Verify reports what image, REPOSITORY@DIGEST, has shown to meet the requirement. The error is a *Refusal when it
// definitely does not, and wraps ErrUnknown when nobody can tell. A yes is remembered by digest and requirement, since
// neither ever changes; a no for a short while, since a signature may still come; what is not known never.
func (v *Verifier) Verify(ctx context.Context, image string, requirement policy.Requirement) (Evidence, error) {
	reference, err := name.NewDigest(image)
	if err != nil {
		return Evidence{}, refuse(image, requirement, ErrNoDigest, "")
	}
	id, err := answerID(reference.DigestStr(), requirement)
	if err != nil {
		return Evidence{}, fmt.Errorf("image %s: %w: %w", image, ErrUnknown, err)
	}
	if known, found := v.answers.get(id, v.Now()); found {
		return known.evidence, known.refusal(image)
	}
	host := reference.RegistryStr()
	if err := v.rests(host); err != nil {
		return Evidence{}, fmt.Errorf("image %s: %w: registry %s was asked a moment ago: %w", image, ErrUnknown, host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	evidence, err := v.look(ctx, image, requirement)
	var refusal *Refusal
	switch {
	case err == nil:
		v.answers.put(id, answer{evidence: evidence})
	case errors.As(err, &refusal):
		v.answers.put(id, answer{refused: refusal, until: v.Now().Add(v.Again)})
	default:
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			v.leave(host, err)
		}
		return Evidence{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return evidence, err
}

// look asks the registry: first for bundles, then for what older versions of cosign attach.
func (v *Verifier) look(ctx context.Context, image string, requirement policy.Requirement) (Evidence, error) {
	keys := make([]publicKey, 0, len(requirement.Keys))
	for _, key := range requirement.Keys {
		parsed, err := parsePublicKey(key)
		if err != nil {
			return Evidence{}, refuse(image, requirement, ErrNoKey, err.Error())
		}
		keys = append(keys, parsed)
	}
	if len(keys) == 0 {
		return Evidence{}, refuse(image, requirement, ErrNoKey, "")
	}
	// A loop that retries asks; retries of the client below it would only hold it up.
	r, err := newRepository(ctx, image, v.Logins, v.transport, remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
	if err != nil {
		return Evidence{}, err
	}
	c := &check{digest: r.digest, requirement: requirement, keys: keys}
	if err := c.bundles(ctx, r); err != nil {
		return Evidence{}, err
	}
	if !c.met() {
		if err := c.tagged(ctx, r); err != nil {
			return Evidence{}, err
		}
	}
	if !c.met() {
		short := c.shortfall()
		return Evidence{}, refuse(image, requirement, short.cause, short.detail)
	}
	c.evidence.Digest = r.digest.String()
	return c.evidence, nil
}

func refuse(image string, requirement policy.Requirement, cause error, detail string) *Refusal {
	return &Refusal{Image: image, Policy: requirement.Policy, Cause: cause, Detail: detail, WayOut: wayOut(cause)}
}

func (v *Verifier) rests(host string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r, known := v.resting[host]; known && v.Now().Before(r.until) {
		return r.err
	}
	delete(v.resting, host)
	return nil
}

func (v *Verifier) leave(host string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.resting[host] = rest{until: v.Now().Add(v.Rest), err: err}
}

// answer is a yes with its evidence, or a no until some time.
type answer struct {
	evidence Evidence
	refused  *Refusal
	until    time.Time // of a no
}

// refusal names the image that is asked for now: the answer may be of another repository's.
func (a answer) refusal(image string) error {
	if a.refused == nil {
		return nil
	}
	refused := *a.refused
	refused.Image = image
	return &refused
}

// answerID identifies a question by digest and requirement.
func answerID(digest string, requirement policy.Requirement) ([sha256.Size]byte, error) {
	encoded, err := json.Marshal(struct {
		Digest      string
		Requirement policy.Requirement
	}{digest, requirement})
	return sha256.Sum256(encoded), err
}
