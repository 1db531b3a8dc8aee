package v1alpha1

// DecryptionProvider is a way of keeping secrets encrypted in Git.
type DecryptionProvider string

// DecryptionSOPS is SOPS with age keys.
const DecryptionSOPS DecryptionProvider = "sops"

// DecryptionSpec decrypts files of the repository as they are read, in memory: manifests, values files and the inputs of
// kustomize's generators. What was rendered with it never reaches the agent's disk.
type DecryptionSpec struct {
	// +kubebuilder:validation:Enum=sops
	Provider DecryptionProvider `json:"provider"`
	// SecretRef names a Secret in the Application's namespace. Its keys that end in .agekey hold age identities, as
	// age-keygen writes them. When it changes, the Application is rendered again.
	SecretRef LocalRef `json:"secretRef"`
}
