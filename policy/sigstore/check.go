package sigstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/slipway-cd/slipway/policy"
)

// check gathers what one image shows until a requirement is met.
type check struct {
	digest      v1.Hash
	requirement policy.Requirement
	keys        []publicKey

	signed   bool
	proven   bool // provenance that is asked for
	evidence Evidence
	// What was in the way, the nearest miss of each.
	signature, provenance miss
	looked                int
}

// miss is the reason why something did not count; a higher rank was nearer to counting.
type miss struct {
	rank   int
	cause  error
	detail string
}

func (m *miss) note(rank int, cause error, detail string) {
	if rank > m.rank {
		*m = miss{rank: rank, cause: cause, detail: detail}
	}
}

func (c *check) met() bool { return c.signed && (c.requirement.Provenance == nil || c.proven) }

// shortfall says what is missing, the signature first.
func (c *check) shortfall() miss {
	m, nothing := c.provenance, ErrNoProvenance
	if !c.signed {
		m, nothing = c.signature, ErrUnsigned
	}
	if m.cause == nil {
		m.cause = nothing
	}
	return m
}

// bundles reads what refers to the image, until that is enough. An error means that nobody knows.
func (c *check) bundles(ctx context.Context, r *repository) error {
	descriptors, err := r.referrers()
	if err != nil {
		return err
	}
	for _, d := range descriptors {
		said := d.Annotations[annotationType]
		switch {
		case c.met():
			return nil
		case said == PredicateSignature && c.signed, said == PredicateProvenance && (c.proven || c.requirement.Provenance == nil),
			said != "" && said != PredicateSignature && said != PredicateProvenance:
			continue // left unread: it would not change the answer
		}
		if c.looked++; c.looked > maxReferrers {
			return fmt.Errorf("image %s: none of the first %d bundles is what the policy asks for (remove those that nobody needs)", r.image, maxReferrers)
		}
		b, err := r.bundle(ctx, d.Digest)
		if errors.Is(err, ErrChanged) {
			c.unreadable(said, err)
			continue
		}
		if err != nil {
			return err
		}
		c.consider(b.envelope, b.hint, said)
	}
	return nil
}

// unreadable notes something stored wrongly that says of itself that it would be of a type.
func (c *check) unreadable(said string, err error) {
	if said != PredicateProvenance {
		c.signature.note(2, ErrChanged, detailOf(err))
	}
	if said != PredicateSignature {
		c.provenance.note(2, ErrChanged, detailOf(err))
	}
}

// consider counts an envelope, or notes why not. said is what the registry says of it, which decides nothing.
func (c *check) consider(envelope []byte, hint, said string) {
	s, key, err := open(envelope, hint, c.keys)
	switch {
	case errors.Is(err, ErrOtherKey):
		if said != PredicateProvenance {
			c.signature.note(1, ErrOtherKey, "")
		}
		if said != PredicateSignature {
			c.provenance.note(1, ErrOtherKey, "")
		}
	case err != nil:
		c.unreadable(said, err)
	case !s.about(c.digest):
		c.signature.note(3, ErrOtherDigest, "")
		c.provenance.note(3, ErrOtherDigest, "")
	case s.PredicateType == PredicateSignature:
		c.sign(key)
	case s.PredicateType == PredicateProvenance:
		c.prove(s)
	}
}

func (c *check) sign(key publicKey) {
	c.signed, c.evidence.Key = true, key.name
}

// prove holds the provenance against what the policy says of sources and builders.
func (c *check) prove(s statement) {
	asked := c.requirement.Provenance
	if asked == nil || c.proven {
		return
	}
	p, err := readProvenance(s)
	if err != nil {
		c.provenance.note(2, ErrChanged, err.Error())
		return
	}
	sources := p.sources()
	if len(sources) == 0 {
		c.provenance.note(4, ErrOtherSource, "the provenance names no Git repository")
		return
	}
	for _, from := range sources {
		if !allowed(asked.Sources, from.url, ".git") {
			c.provenance.note(4, ErrOtherSource, from.url)
			return
		}
	}
	by := p.RunDetails.Builder.ID
	if !allowed(asked.Builders, by, "") {
		c.provenance.note(5, ErrOtherBuilder, by)
		return
	}
	c.proven = true
	c.evidence.Source, c.evidence.Commit = sources[0].url, sources[0].commit
	c.evidence.Builder, c.evidence.Run = by, p.RunDetails.Metadata.InvocationID
}

// allowed reports whether one of the patterns, less a suffix that may be left out, matches. An empty list is open.
func allowed(patterns []string, name, suffix string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		return policy.Match(strings.TrimSuffix(pattern, suffix), name)
	})
}

func detailOf(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), ErrChanged.Error()), ": ")
}
