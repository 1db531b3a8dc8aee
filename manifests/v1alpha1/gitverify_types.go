package v1alpha1

// Verification says what of a source must be signed, and by whom. What is not is not applied: the last
// verified revision stays until a signed one comes. Commits that Slipway itself makes are not signed, so
// a failed version of such a source is not reverted automatically.
type Verification struct {
	// Mode: Head, the commit; Tag, the annotated tag that is followed; TagAndHead, both.
	// +kubebuilder:validation:Enum=Head;Tag;TagAndHead
	// +kubebuilder:default=Head
	Mode VerificationMode `json:"mode,omitempty"`
	// SecretRef names a Secret of the same namespace with the public keys that count: allowed_signers, in the
	// format of ssh-keygen(1), for SSH; NAME.asc (armored) or NAME.gpg for OpenPGP.
	SecretRef LocalRef `json:"secretRef"`
}

// VerificationMode is what must be signed.
type VerificationMode string

// The modes.
const (
	VerifyHead       VerificationMode = "Head"
	VerifyTag        VerificationMode = "Tag"
	VerifyTagAndHead VerificationMode = "TagAndHead"
)
