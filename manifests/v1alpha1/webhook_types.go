package v1alpha1

// SourceWebhook lets a Git host say that the repository moved, so that nobody waits for the interval. Where it is sent is
// the agent's --webhook-address, at /v1/hooks/NAME with the name of the source.
type SourceWebhook struct {
	// Kind of host, which decides how messages are signed: github, gitlab, gitea (and Forgejo), or generic: any body, with
	// the HMAC-SHA256 of it as X-Signature: sha256=HEX.
	// +kubebuilder:validation:Enum=github;gitlab;gitea;generic
	Kind string `json:"kind"`
	// SecretRef names a Secret of the same namespace with the key token: what the host signs with.
	SecretRef LocalRef `json:"secretRef"`
}
