package policy

import "strings"

// ImageUse is one image as an object of an Application refers to it.
type ImageUse struct {
	Image         string // reference as written: "registry/repo:tag@sha256:..."
	Object        string // the object that uses it, "apps/Deployment shop/web"
	RequireDigest bool   // the Application's spec.images.requireDigest
}

// ImagesByDigest refuses an image without a digest where the Application asks for digests.
// Elsewhere it allows: a tag is then the choice of who wrote the Application.
func ImagesByDigest() Rule[ImageUse] {
	return RuleFunc[ImageUse](func(in ImageUse) Decision {
		decision := Decision{Outcome: Allow, Rule: "images by digest", Subject: in.Object + " image " + in.Image}
		if in.RequireDigest && !strings.Contains(in.Image, "@sha256:") {
			decision.Outcome = Deny
			decision.Reason = "the Application requires images by digest (spec.images.requireDigest); " +
				"write it as NAME@sha256:..., for example with 'slipway promote --image'"
		}
		return decision
	})
}
