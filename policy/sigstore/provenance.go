package sigstore

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	provenancev1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/slipway-cd/slipway/builder"
)

// BuildType names what externalParameters mean: repository and ref of the source, path of the pipeline's definition in
// it, and the stage that made the image.
const BuildType = "https://slipway.dev/build/go-image/v1"

// DefaultBuilder is the builder id where Options name none; the tier of isolation follows behind a slash.
const DefaultBuilder = "https://slipway.dev/builder"

// Subject is an image with what the control plane knows of its build. Nothing of it is read from inside the build,
// except for Base, which the worker reports.
type Subject struct {
	Image builder.Image
	Run   builder.Run
	Job   string // of Run, that made the image; it names tier and worker
	// Definition is the path of the pipeline in the source; default ".pipeline.yml".
	Definition string
	Base       string    // REPOSITORY@sha256:... that the image was built upon; empty for none
	Started    time.Time // of the Job; default what the Run says
	Finished   time.Time // of the Job; default what the Run says
}

// complete fills defaults and refuses what would attest something wrong.
func (s Subject) complete() (Subject, builder.Job, error) {
	if s.Definition == "" {
		s.Definition = ".pipeline.yml"
	}
	if s.Run.ID == "" || s.Run.Revision.ID == "" || s.Run.Repo.URL == "" {
		return s, builder.Job{}, fmt.Errorf("image %s: its run has no id, repository or commit", s.Image.Reference())
	}
	if s.Image.Revision.ID != "" && s.Image.Revision.ID != s.Run.Revision.ID {
		return s, builder.Job{}, fmt.Errorf("image %s: built from %s, and run %s is of %s", s.Image.Reference(),
			s.Image.Revision.ID.Short(), s.Run.ID, s.Run.Revision.ID.Short())
	}
	if s.Base != "" && !strings.Contains(s.Base, "@sha256:") {
		return s, builder.Job{}, fmt.Errorf("image %s: base %s is not named by its digest", s.Image.Reference(), s.Base)
	}
	for _, job := range s.Run.Jobs {
		if job.Name != s.Job {
			continue
		}
		if job.Tier == "" {
			return s, builder.Job{}, fmt.Errorf("image %s: job %s of run %s does not say how it was isolated", s.Image.Reference(), s.Job, s.Run.ID)
		}
		if s.Started.IsZero() {
			s.Started = job.Started
		}
		if s.Finished.IsZero() {
			s.Finished = job.Finished
		}
		return s, job, nil
	}
	return s, builder.Job{}, fmt.Errorf("image %s: run %s has no job %q", s.Image.Reference(), s.Run.ID, s.Job)
}

// ended is a time that stays the same however often the image is attested.
func (s Subject) ended() time.Time {
	for _, t := range []time.Time{s.Finished, s.Started, s.Run.Created} {
		if !t.IsZero() {
			return t
		}
	}
	return time.Unix(0, 0)
}

// version is what a program says of its main module, or the commit where it does not know.
func (s Subject) version(said string) string {
	if said == "" || said == "(devel)" {
		return string(s.Run.Revision.ID)
	}
	return said
}

// invocation names the execution of a Job, so that two Runs that make the same image each have their provenance.
func (s Subject) invocation() string { return s.Run.ID }

// provenance fills https://slsa.dev/spec/v1.0/provenance.
func (s *Signer) provenance(subject Subject, job builder.Job, programs []program) (*structpb.Struct, error) {
	external, err := object(map[string]any{
		"repository": subject.Run.Repo.URL, "ref": subject.Run.Revision.Ref, "pipeline": subject.Definition, "stage": subject.Job,
	})
	if err != nil {
		return nil, err
	}
	internal, err := object(map[string]any{
		"pipelineName": subject.Run.Pipeline, "trace": subject.Run.Trace, "trigger": subject.Run.Trigger.Kind,
		"actor": subject.Run.Trigger.Actor, "delivery": subject.Run.Trigger.Delivery,
		"attempt": job.Attempt, "worker": job.Worker, "isolation": job.Tier, "isolationMissing": append([]string{}, job.Missing...),
	})
	if err != nil {
		return nil, err
	}
	p := &provenancev1.Provenance{
		BuildDefinition: &provenancev1.BuildDefinition{
			BuildType: BuildType, ExternalParameters: external, InternalParameters: internal,
			ResolvedDependencies: dependencies(subject, programs),
		},
		RunDetails: &provenancev1.RunDetails{
			Builder: &provenancev1.Builder{Id: s.builder + "/" + job.Tier, Version: map[string]string{"slipway": s.version}},
			Metadata: &provenancev1.BuildMetadata{
				InvocationId: subject.invocation(), StartedOn: timestamp(subject.Started), FinishedOn: timestamp(subject.Finished),
			},
		},
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	encoded, err := protojson.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	predicate := &structpb.Struct{}
	if err := predicate.UnmarshalJSON(encoded); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	return predicate, nil
}

// dependencies are the source, the base image and the toolchain that the program itself names.
func dependencies(subject Subject, programs []program) []*intoto.ResourceDescriptor {
	revision := subject.Run.Revision
	all := []*intoto.ResourceDescriptor{{
		Name: "source", Uri: "git+" + subject.Run.Repo.URL + "@" + revision.Ref,
		Digest: map[string]string{"gitCommit": string(revision.ID)},
	}}
	if repository, digest, found := strings.Cut(subject.Base, "@sha256:"); found {
		all = append(all, &intoto.ResourceDescriptor{Name: "base", Uri: "oci://" + repository, Digest: map[string]string{"sha256": digest}})
	}
	seen := map[string]bool{}
	for _, p := range programs {
		if !seen[p.info.GoVersion] {
			seen[p.info.GoVersion] = true
			all = append(all, &intoto.ResourceDescriptor{Name: "go", Uri: "pkg:golang/toolchain@" + strings.TrimPrefix(p.info.GoVersion, "go")})
		}
	}
	return all
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// object goes by way of JSON, which knows more types than structpb.
func object(fields map[string]any) (*structpb.Struct, error) {
	encoded, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	s := &structpb.Struct{}
	return s, s.UnmarshalJSON(encoded)
}

// provenance is what is read of a predicate, whoever wrote it.
type provenance struct {
	BuildDefinition struct {
		ResolvedDependencies []struct {
			URI    string            `json:"uri"`
			Digest map[string]string `json:"digest"`
		} `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata struct {
			InvocationID string `json:"invocationId"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

func readProvenance(s statement) (provenance, error) {
	var p provenance
	if err := json.Unmarshal(s.Predicate, &p); err != nil {
		return provenance{}, fmt.Errorf("provenance: %w", err)
	}
	return p, nil
}

// source is a repository that a build took its source from.
type source struct {
	url    string // without a ".git" at its end
	commit string
}

// sources are the Git repositories among the dependencies: "git+URL@REF".
func (p provenance) sources() (all []source) {
	for _, d := range p.BuildDefinition.ResolvedDependencies {
		at, isGit := strings.CutPrefix(d.URI, "git+")
		if !isGit {
			continue
		}
		// A ref follows the path; an at-sign before it would be part of the host.
		if ref := strings.LastIndex(at, "@"); ref > strings.LastIndex(at, "://")+3 && ref > pathStart(at) {
			at = at[:ref]
		}
		commit := d.Digest["gitCommit"]
		if commit == "" {
			commit = d.Digest["sha1"]
		}
		all = append(all, source{url: strings.TrimSuffix(strings.TrimSuffix(at, "/"), ".git"), commit: commit})
	}
	return all
}

// pathStart is where the path of a URL begins.
func pathStart(url string) int {
	host := strings.Index(url, "://") + 3
	if slash := strings.IndexByte(url[host:], '/'); slash >= 0 {
		return host + slash
	}
	return len(url)
}
