package sigstore

import (
	"errors"
	"fmt"
)

// ErrUnknown says that nobody could tell whether an image meets a requirement: the registry did not answer.
var ErrUnknown = errors.New("not known")

// Why an image is refused.
var (
	ErrNoDigest     = errors.New("not named by its digest")
	ErrNoKey        = errors.New("the policy has no usable key")
	ErrUnsigned     = errors.New("not signed")
	ErrOtherKey     = errors.New("signed by another key")
	ErrOtherDigest  = errors.New("signed for another digest")
	ErrChanged      = errors.New("changed after it was signed")
	ErrNoProvenance = errors.New("without provenance")
	ErrOtherSource  = errors.New("built from another source")
	ErrOtherBuilder = errors.New("built by another builder")
)

// Refusal says which image is refused, by which policy, why, and what can be done. It wraps one of the errors above.
type Refusal struct {
	Image  string
	Policy string
	Cause  error
	Detail string // may be empty
	WayOut string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("image %s: refused by image policy %s: %s", r.Image, r.Policy, r.Reason())
}

// Reason is the refusal without the names of image and policy.
func (r *Refusal) Reason() string {
	reason := r.Cause.Error()
	if r.Detail != "" {
		reason += ": " + r.Detail
	}
	return reason + " (" + r.WayOut + ")"
}

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

// wayOut of a refusal, in words.
func wayOut(cause error) string {
	switch {
	case errors.Is(cause, ErrNoDigest):
		return "a tag can move after it was verified; write NAME@sha256:..., for example with 'slipway promote --image'"
	case errors.Is(cause, ErrNoKey):
		return "correct spec.keys of the policy"
	case errors.Is(cause, ErrUnsigned):
		return "let a Slipway pipeline build it, or sign it with 'cosign sign --key'"
	case errors.Is(cause, ErrOtherKey):
		return "sign it with a key of the policy, or add the signer's public key to spec.keys"
	case errors.Is(cause, ErrOtherDigest), errors.Is(cause, ErrChanged):
		return "somebody may have tampered with the registry; build the image again"
	case errors.Is(cause, ErrNoProvenance):
		return "let a Slipway pipeline build it, or attach provenance with 'cosign attest --type slsaprovenance1'"
	case errors.Is(cause, ErrOtherSource):
		return "build it from a repository that spec.provenance.sources names, or add that one"
	default:
		return "build it where spec.provenance.builders allows, or add that builder"
	}
}
