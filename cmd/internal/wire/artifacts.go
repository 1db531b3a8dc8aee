package wire

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	fluxcontroller "github.com/fluxcd/pkg/runtime/controller"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/oci"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
	"github.com/slipway-cd/slipway/reconciler"
)

// artifacts adapts package oci, and package sigstore for signatures, to the reconciler's port.
type artifacts struct {
	store *oci.Store
	now   func() time.Time

	mu        sync.Mutex
	verifiers map[[sha256.Size]byte]verifier // by login, so that each remembers what it found out
}

// maxVerifiers bounds them: a login that changes makes a new one.
const maxVerifiers = 64

func newArtifacts(dir, logins string, now func() time.Time) (*artifacts, error) {
	store, err := oci.New(oci.Options{Dir: dir, Now: now, Logins: func() (oci.Logins, error) { return loginsFile(logins) }})
	if err != nil {
		return nil, err
	}
	return &artifacts{store: store, now: now, verifiers: map[[sha256.Size]byte]verifier{}}, nil
}

// follow registers the loops over OCISources and ChartSources.
func (a *artifacts) follow(mgr ctrl.Manager, now func() time.Time, recorded fluxcontroller.Metrics) error {
	options := reconciler.ArtifactOptions{Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Artifacts: a, Now: now, Metrics: recorded}
	images, err := reconciler.NewOCISource(options)
	if err != nil {
		return err
	}
	charts, err := reconciler.NewChartSource(options)
	if err != nil {
		return err
	}
	return errors.Join(images.SetupWithManager(mgr), charts.SetupWithManager(mgr))
}

// Open opens an artifact with its login.
func (a *artifacts) Open(origin reconciler.Origin) (reconciler.Artifact, error) {
	return a.open(origin)
}

func (a *artifacts) open(origin reconciler.Origin) (*oci.Artifact, error) {
	logins, err := loginsOf(origin)
	if err != nil {
		return nil, err
	}
	provider := oci.Provider(origin.Provider)
	if provider == "generic" {
		provider = oci.Generic
	}
	return a.store.Open(oci.Source{
		URL: origin.URL, Chart: origin.Chart, Tag: origin.Tag, Range: origin.Range, Digest: origin.Digest, Logins: logins, Provider: provider,
	})
}

// Verify looks for a signature in the registry that the artifact is in.
func (a *artifacts) Verify(ctx context.Context, origin reconciler.Origin, digest gitsource.ObjectID, requirement policy.Requirement) (policy.Decision, error) {
	repository, found := strings.CutPrefix(strings.TrimSuffix(origin.URL, "/"), "oci://")
	if !found {
		return policy.Decision{Outcome: policy.Deny, Rule: requirement.Policy, Subject: origin.URL, Reason: "signatures are kept by registries (want oci://...)"}, nil
	}
	if origin.Chart != "" {
		repository += "/" + origin.Chart
	}
	artifact, err := a.open(origin)
	if err != nil {
		return policy.Decision{}, err
	}
	return a.verifier(ctx, origin, artifact, repository).Verify(ctx, repository+"@sha256:"+string(digest), requirement)
}

// verifier returns one that logs in as the artifact does.
func (a *artifacts) verifier(ctx context.Context, origin reconciler.Origin, artifact *oci.Artifact, repository string) verifier {
	login := origin.Login
	sum := sha256.Sum256([]byte(repository + "\x00" + origin.Provider + "\x00" + login.Username + "\x00" + login.Password.Reveal() + "\x00" + login.DockerConfig.Reveal()))
	a.mu.Lock()
	defer a.mu.Unlock()
	known, found := a.verifiers[sum]
	if found {
		return known
	}
	if len(a.verifiers) >= maxVerifiers {
		clear(a.verifiers)
	}
	ctx = context.WithoutCancel(ctx) // the verifier outlives this look
	own := sigstore.Logins(func(string) (sigstore.Login, error) {
		found, err := artifact.Login(ctx)
		return sigstore.Login{Username: found.Username, Password: found.Password}, err
	})
	known = verifier{sigstore.NewVerifier(sigstore.VerifierOptions{Logins: own, Now: a.now})}
	a.verifiers[sum] = known
	return known
}

func loginsOf(origin reconciler.Origin) (oci.Logins, error) {
	if !origin.Login.DockerConfig.Empty() {
		return oci.ParseLogins([]byte(origin.Login.DockerConfig.Reveal()))
	}
	if origin.Login.Username == "" {
		return oci.Logins{}, nil
	}
	at, err := url.Parse(origin.URL)
	if err != nil {
		return oci.Logins{}, fmt.Errorf("the URL of the source cannot be read")
	}
	return oci.LoginOf(at.Host, oci.Login{Username: origin.Login.Username, Password: origin.Login.Password}), nil
}

// loginsFile reads the agent's own logins anew each time, so that a rotated Secret counts at once. No name, or a file that
// is not there, is anonymous everywhere.
func loginsFile(name string) (oci.Logins, error) {
	if name == "" {
		return oci.Logins{}, nil
	}
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return oci.Logins{}, nil
	}
	if err != nil {
		return oci.Logins{}, fmt.Errorf("registry logins: %w", err)
	}
	logins, err := oci.ParseLogins(content)
	if err != nil {
		return oci.Logins{}, fmt.Errorf("registry logins %s: %w", name, err)
	}
	return logins, nil
}
