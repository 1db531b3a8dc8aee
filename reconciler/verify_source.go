package reconciler

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/signature"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// unverifiedError says that a revision lacks a signature that counts.
type unverifiedError struct{ error }

// Unwrap returns the error.
func (e unverifiedError) Unwrap() error { return e.error }

// errLightweight says that there is nothing that could be signed.
var errLightweight = errors.New("it is a lightweight tag, which cannot be signed; make one with git tag --sign")

// verify returns who signed a revision; empty if nobody has to.
func (r *SourceReconciler) verify(ctx context.Context, src *v1alpha1.GitSource, repository Repository, revision gitsource.Revision) (string, error) {
	if src.Spec.Verify == nil {
		return "", nil
	}
	keys, err := signersOf(ctx, r.secrets, src)
	if err != nil {
		return "", err
	}
	var signers []string
	if src.Spec.Verify.Mode != v1alpha1.VerifyHead {
		signer, err := verifyTag(ctx, keys, repository, revision)
		if err != nil {
			return "", err
		}
		signers = append(signers, signer.String())
	}
	if src.Spec.Verify.Mode != v1alpha1.VerifyTag {
		signer, err := verifyCommit(ctx, keys, repository, revision)
		if err != nil {
			return "", err
		}
		if signers = append(signers, signer.String()); len(signers) == 2 && signers[0] == signers[1] {
			signers = signers[:1]
		}
	}
	return strings.Join(signers, ", "), nil
}

// signersOf reads the keys that count.
func signersOf(ctx context.Context, secrets client.Reader, src *v1alpha1.GitSource) (signature.Keys, error) {
	var secret corev1.Secret
	key := types.NamespacedName{Namespace: src.Namespace, Name: src.Spec.Verify.SecretRef.Name}
	if err := secrets.Get(ctx, key, &secret); err != nil {
		return signature.Keys{}, fmt.Errorf("gitsource %s: secret %s with the keys of signers: %w", src.Name, key.Name, err)
	}
	keys, err := signature.ParseKeys(secret.Data)
	if err != nil {
		return signature.Keys{}, invalidError{fmt.Errorf("gitsource %s: secret %s with the keys of signers: %w", src.Name, key.Name, err)}
	}
	return keys, nil
}

func verifyCommit(ctx context.Context, keys signature.Keys, repository Repository, revision gitsource.Revision) (signature.Signer, error) {
	content, err := repository.Object(ctx, revision.ID)
	if err != nil {
		return signature.Signer{}, err
	}
	signer, err := keys.Commit(content)
	if err != nil {
		return signature.Signer{}, unverifiedError{fmt.Errorf("commit %s is not applied: %w", revision.ID, err)}
	}
	return signer, nil
}

func verifyTag(ctx context.Context, keys signature.Keys, repository Repository, revision gitsource.Revision) (signature.Signer, error) {
	refused := func(err error) error { return unverifiedError{fmt.Errorf("%s is not applied: %w", revision.Ref, err)} }
	if revision.Tag == "" {
		return signature.Signer{}, refused(errLightweight)
	}
	content, err := repository.Object(ctx, revision.Tag)
	if err != nil {
		return signature.Signer{}, err
	}
	signer, err := keys.Tag(content, strings.TrimPrefix(revision.Ref, "refs/tags/"), revision.ID)
	if err != nil {
		return signature.Signer{}, refused(err)
	}
	return signer, nil
}

// standing is the revision that may be applied; empty if there is none. A revision that was seen before
// signatures were asked for, or verified by what the spec said then, may not.
func standing(src *v1alpha1.GitSource) string {
	if src.Spec.Verify != nil && (src.Status.VerifiedBy == "" || src.Status.ObservedGeneration != src.Generation) {
		return ""
	}
	return src.Status.Revision
}

// forgetUnverified drops the revision that the status kept, unless it was verified by the spec as it is now.
func forgetUnverified(src *v1alpha1.GitSource) {
	if src.Spec.Verify == nil {
		src.Status.VerifiedBy = ""
		return
	}
	if src.Status.VerifiedBy != "" && src.Status.ObservedGeneration == src.Generation {
		return
	}
	src.Status.Revision, src.Status.VerifiedBy, src.Status.FetchedAt = "", "", nil
}

// kept says for people what became of a revision that was not verified.
func kept(src *v1alpha1.GitSource, err error) string {
	switch {
	case !errors.As(err, new(unverifiedError)):
		return err.Error()
	case src.Status.Revision == "":
		return err.Error() + "; no revision was verified before"
	}
	return err.Error() + "; " + src.Status.Revision + " is kept"
}
