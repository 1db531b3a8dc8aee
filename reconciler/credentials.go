package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// Credentials for a repository; the zero value is anonymous.
type Credentials struct {
	Username    string
	Password    policy.Secret // of the user, or of an encrypted Identity
	BearerToken policy.Secret
	App         *GitHubApp

	Certificate    []byte // PEM, of the client
	CertificateKey policy.Secret
	CA             []byte // PEM, of the host

	Identity   policy.Secret // private key for ssh
	PublicKey  []byte
	KnownHosts []byte
}

// GitHubApp is an app that GitHub gives tokens of an installation to.
type GitHubApp struct {
	ID, Installation string
	PrivateKey       policy.Secret // PEM
	BaseURL          string        // of the API; empty for that of the repository's host
}

// The keys of a Secret with credentials, by the protocol of the repository's URL.
const (
	keyUsername, keyPassword          = "username", "password"
	keyBearer                         = "bearerToken"
	keyCertificate, keyCertificateKey = "tls.crt", "tls.key"
	keyCA                             = "ca.crt"
	keyAppID, keyAppInstallation      = "githubAppID", "githubAppInstallationID"
	keyAppPrivateKey, keyAppBaseURL   = "githubAppPrivateKey", "githubAppBaseURL"
	keyIdentity, keyPublic, keyKnown  = "identity", "identity.pub", "known_hosts"
)

// keysFor are the keys that a Secret may have for a protocol.
func keysFor(protocol string) []string {
	if protocol == "ssh" {
		return []string{keyIdentity, keyPublic, keyKnown, keyPassword}
	}
	return []string{keyUsername, keyPassword, keyBearer, keyCertificate, keyCertificateKey, keyCA, keyAppID, keyAppInstallation, keyAppPrivateKey, keyAppBaseURL}
}

// credentialsOf reads a Secret. Keys that are not known, or are not for the protocol, are refused by
// name: a misspelt one would make an agent anonymous, or trust the wrong host.
func credentialsOf(protocol string, data map[string][]byte) (Credentials, error) {
	known := keysFor(protocol)
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if !slices.Contains(known, key) {
			return Credentials{}, fmt.Errorf("key %s is not known for %s; known are %s", key, protocol, strings.Join(known, ", "))
		}
		if len(data[key]) == 0 {
			return Credentials{}, fmt.Errorf("key %s is empty; fill it in or leave it out", key)
		}
	}
	secret := func(key string) policy.Secret { return policy.NewSecret(string(data[key])) }
	c := Credentials{
		Username: string(data[keyUsername]), Password: secret(keyPassword),
		BearerToken: policy.NewSecret(strings.TrimSpace(string(data[keyBearer]))),
		Certificate: data[keyCertificate], CertificateKey: secret(keyCertificateKey), CA: data[keyCA],
		Identity: secret(keyIdentity), PublicKey: data[keyPublic], KnownHosts: data[keyKnown],
	}
	if data[keyAppID] == nil && data[keyAppInstallation] == nil && data[keyAppPrivateKey] == nil && data[keyAppBaseURL] == nil {
		return c, nil
	}
	for _, key := range []string{keyAppID, keyAppInstallation, keyAppPrivateKey} {
		if data[key] == nil {
			return Credentials{}, fmt.Errorf("a GitHub App needs the key %s, too", key)
		}
	}
	trimmed := func(key string) string { return strings.TrimSpace(string(data[key])) }
	c.App = &GitHubApp{ID: trimmed(keyAppID), Installation: trimmed(keyAppInstallation), PrivateKey: secret(keyAppPrivateKey), BaseURL: trimmed(keyAppBaseURL)}
	return c, nil
}

// opened is the repository of a source, as long as neither its spec nor its Secret changes.
type opened struct {
	generation int64
	secret     string // its resourceVersion
	repository Repository

	credentials Credentials
}

// open is openSource for those who come again and again: as long as the watch tells of no other version of it, the Secret is
// not read again.
func (r *ApplicationReconciler) open(ctx context.Context, src *v1alpha1.GitSource) (Repository, error) {
	known, err := r.openedOf(ctx, src)
	return known.repository, err
}

// credentials are those that open uses.
func (r *ApplicationReconciler) credentials(ctx context.Context, src *v1alpha1.GitSource) (Credentials, error) {
	known, err := r.openedOf(ctx, src)
	return known.credentials, err
}

func (r *ApplicationReconciler) openedOf(ctx context.Context, src *v1alpha1.GitSource) (opened, error) {
	secret := versionOf(v1alpha1.InputSecret)
	if src.Spec.SecretRef != nil {
		key := types.NamespacedName{Namespace: src.Namespace, Name: src.Spec.SecretRef.Name}
		if err := r.Client.Get(ctx, key, secret); err != nil && !apierrors.IsNotFound(err) {
			return opened{}, fmt.Errorf("gitsource %s: secret %s: %w", src.Name, key.Name, err)
		}
	}
	r.mu.Lock()
	known, found := r.opened[src.UID]
	r.mu.Unlock()
	if found && known.generation == src.Generation && known.secret == secret.ResourceVersion {
		return known, nil
	}
	credentials, err := credentialsFor(ctx, r.Secrets, src)
	if err != nil {
		return opened{}, err
	}
	known = opened{generation: src.Generation, secret: secret.ResourceVersion, credentials: credentials}
	if known.repository, err = r.Repositories.Open(ctx, src.Spec.URL, credentials); err != nil {
		return opened{}, fmt.Errorf("gitsource %s: %w", src.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened[src.UID] = known
	return known, nil
}

// openSource opens the repository of src with its credentials.
func openSource(ctx context.Context, secrets client.Reader, repositories Repositories, src *v1alpha1.GitSource) (Repository, error) {
	credentials, err := credentialsFor(ctx, secrets, src)
	if err != nil {
		return nil, err
	}
	repository, err := repositories.Open(ctx, src.Spec.URL, credentials)
	if err != nil {
		return nil, fmt.Errorf("gitsource %s: %w", src.Name, err)
	}
	return repository, nil
}

// credentialsFor reads those of src; the zero value where it names no Secret.
func credentialsFor(ctx context.Context, secrets client.Reader, src *v1alpha1.GitSource) (Credentials, error) {
	if src.Spec.SecretRef == nil {
		return Credentials{}, nil
	}
	var secret corev1.Secret
	key := types.NamespacedName{Namespace: src.Namespace, Name: src.Spec.SecretRef.Name}
	if err := secrets.Get(ctx, key, &secret); err != nil {
		return Credentials{}, fmt.Errorf("gitsource %s: secret %s: %w", src.Name, key.Name, err)
	}
	target, err := url.Parse(src.Spec.URL)
	if err != nil {
		return Credentials{}, invalidError{fmt.Errorf("gitsource %s: spec.url: %w", src.Name, errors.New("it cannot be parsed"))}
	}
	credentials, err := credentialsOf(target.Scheme, secret.Data)
	if err != nil {
		return Credentials{}, invalidError{fmt.Errorf("gitsource %s: secret %s: %w", src.Name, key.Name, err)}
	}
	return credentials, nil
}
