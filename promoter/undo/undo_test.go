package undo_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// files is a Tree whose ids are hashes of what stands below.
type files map[string]string

func (f files) mapFS() fstest.MapFS {
	out := fstest.MapFS{}
	for path, content := range f {
		out[path] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return out
}

func (f files) Open(name string) (fs.File, error)          { return f.mapFS().Open(name) }
func (f files) ReadFile(name string) ([]byte, error)       { return f.mapFS().ReadFile(name) }
func (f files) ReadDir(name string) ([]fs.DirEntry, error) { return f.mapFS().ReadDir(name) }
func (f files) ReadLink(string) (string, error)            { return "", fs.ErrInvalid }

func (f files) Entry(path string) (gitsource.Entry, error) {
	if content, found := f[path]; found {
		return gitsource.Entry{Kind: gitsource.File, ID: id(content), Size: int64(len(content))}, nil
	}
	below := ""
	err := fs.WalkDir(f.mapFS(), path, func(p string, _ fs.DirEntry, err error) error {
		below += p + "\x00" + f[p] + "\x00"
		return err
	})
	if err != nil {
		return gitsource.Entry{}, nil
	}
	return gitsource.Entry{Kind: gitsource.Directory, ID: id(below)}, nil
}

func id(content string) gitsource.ObjectID {
	sum := sha256.Sum256([]byte(content))
	return gitsource.ObjectID(hex.EncodeToString(sum[:]))
}

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

var (
	at    = time.Date(2026, 3, 1, 13, 0, 0, 5, time.FixedZone("", 3600))
	facts = undo.Facts{
		Cluster: "eu", App: "shop", Environment: "production", Path: "apps/shop/production", Failed: id("f"), Healthy: id("h"),
		Holds: []v1alpha1.HeldImage{{Name: "r.example/shop", Digest: digest("b")}}, At: at,
	}
	evidence = undo.Evidence{
		Verdict: v1alpha1.Verdict{
			Outcome: "Fail", Reason: "ProgressDeadlineExceeded", Message: "1 of 3 available\nSlipway-Verdict: Pass",
			Samples: []v1alpha1.Sample{{At: metav1.NewTime(at), Check: "available replicas", Value: "1 of 3"}},
		},
		Restored: []string{"r.example/shop@" + digest("a")}, Trace: "t1",
	}
)

func trees() undo.Trees {
	return undo.Trees{
		Healthy: files{"apps/shop/production/k.yaml": "a", "README": "1"},
		Failed:  files{"apps/shop/production/k.yaml": "b", "README": "1"},
		Tip:     files{"apps/shop/production/k.yaml": "b", "README": "2"},
	}
}

func TestComposeRevert(t *testing.T) {
	r, err := undo.ComposeRevert(trees(), facts, evidence)
	if err != nil {
		t.Fatal(err)
	}
	hold := environment.HoldPath("production", "shop")
	if len(r.Changes) != 2 || r.Changes[0].Path != hold || r.Changes[1].Path != "apps/shop/production/k.yaml" || string(r.Changes[1].Content) != "a" {
		t.Fatalf("%+v", r.Changes)
	}
	holds, err := environment.ParseHolds(r.Changes[0].Content)
	if err != nil {
		t.Fatal(err)
	}
	got, held := holds.Find("r.example/shop", digest("b"))
	want := environment.Hold{
		Image: "r.example/shop", Digest: digest("b"), Reason: "failed in cluster eu; reverted automatically",
		Verdict: "Fail ProgressDeadlineExceeded: 1 of 3 available Slipway-Verdict: Pass", Since: at.UTC().Truncate(time.Second), By: "slipway-agent eu",
	}
	if !held || got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	block := trailer.Parse(r.Message)
	if block.Verdict != want.Verdict || len(block.Reverts) != 1 || block.Reverts[0] != facts.Failed || len(block.Changes) != 1 || block.Changes[0].Trace != "t1" {
		t.Errorf("%+v", block)
	}
	again, err := undo.ComposeRevert(trees(), facts, evidence)
	if err != nil || again.Message != r.Message || string(again.Changes[0].Content) != string(r.Changes[0].Content) || again.Author != r.Author {
		t.Errorf("not deterministic: %v", err)
	}
	// A server gets the message alone and must find the same.
	changes, err := undo.Changes(trees(), facts, block.Verdict)
	if err != nil || string(changes[0].Content) != string(r.Changes[0].Content) {
		t.Errorf("%v\n%s", err, changes[0].Content)
	}
}

func TestComposeRevertOnTheResult(t *testing.T) {
	r, err := undo.ComposeRevert(trees(), facts, evidence)
	if err != nil {
		t.Fatal(err)
	}
	after := trees()
	tip := after.Tip.(files)
	for _, c := range r.Changes {
		tip[c.Path] = string(c.Content)
	}
	again, err := undo.ComposeRevert(after, facts, evidence)
	if err != nil || len(again.Changes) != 0 {
		t.Errorf("%+v, %v", again.Changes, err)
	}
}

func TestComposeRevertRefuses(t *testing.T) {
	both := trees()
	both.Tip.(files)["apps/shop/production/k.yaml"] = "c"
	if _, err := undo.ComposeRevert(both, facts, evidence); !errors.As(err, new(*undo.ConflictError)) {
		t.Errorf("conflict: %v", err)
	}
	broken := trees()
	broken.Tip.(files)[environment.HoldPath("production", "shop")] = "holds: ["
	if _, err := undo.ComposeRevert(broken, facts, evidence); err == nil {
		t.Error("a broken file of holds was replaced")
	}
	for name, change := range map[string]func(*undo.Facts){
		"path":    func(f *undo.Facts) { f.Path = ".slipway/agents" },
		"root":    func(f *undo.Facts) { f.Path = "." },
		"app":     func(f *undo.Facts) { f.App = "../x" },
		"time":    func(f *undo.Facts) { f.At = time.Time{} },
		"digest":  func(f *undo.Facts) { f.Holds = []v1alpha1.HeldImage{{Name: "a", Digest: "b"}} },
		"cluster": func(f *undo.Facts) { f.Cluster = "" },
	} {
		f := facts
		change(&f)
		if _, err := undo.ComposeRevert(trees(), f, evidence); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func TestLeft(t *testing.T) {
	before := []edit.Image{{Name: "shop", NewName: "r/shop", Digest: digest("b")}, {Name: "db", Digest: digest("c")}, {Name: "tagged", NewTag: "v1"}}
	after := []edit.Image{{Name: "shop", Digest: digest("a")}, {Name: "db", Digest: digest("c")}}
	if got := undo.Left(before, after); len(got) != 1 || got[0] != (v1alpha1.HeldImage{Name: "r/shop", Digest: digest("b")}) {
		t.Errorf("%+v", got)
	}
}

func TestSignAndVerify(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := v1alpha1.RevertRequest{URL: "https://g/x", Branch: "main", Cluster: "eu", Message: "a <b> & \u2028 c", At: metav1.NewTime(at.Truncate(time.Second)), Direct: true}
	if err := undo.Sign(private, &r); err != nil {
		t.Fatal(err)
	}
	if err := undo.Verify(public, r); err != nil {
		t.Fatal(err)
	}
	moved := r
	moved.At = metav1.NewTime(r.At.UTC()) // as the API server gives it back
	if err := undo.Verify(public, moved); err != nil {
		t.Errorf("another zone: %v", err)
	}
	for name, change := range map[string]func(*v1alpha1.RevertRequest){
		"tree":      func(r *v1alpha1.RevertRequest) { r.Tree = "x" },
		"direct":    func(r *v1alpha1.RevertRequest) { r.Direct = false },
		"holds":     func(r *v1alpha1.RevertRequest) { r.Holds = facts.Holds },
		"time":      func(r *v1alpha1.RevertRequest) { r.At = metav1.NewTime(at.Add(time.Second)) },
		"signature": func(r *v1alpha1.RevertRequest) { r.Signature = "" },
		"utf-8":     func(r *v1alpha1.RevertRequest) { r.Message = "\xff" },
	} {
		forged := r
		change(&forged)
		if err := undo.Verify(public, forged); err == nil {
			t.Errorf("%s changed, and verified", name)
		}
	}
	other, _, _ := ed25519.GenerateKey(nil)
	if err := undo.Verify(other, r); !errors.Is(err, undo.ErrSignature) {
		t.Error(err)
	}
}

func TestPublicKeyFiles(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{undo.FormatPublicKey(public), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})} {
		if got, err := undo.ParsePublicKey(content); err != nil || !got.Equal(public) {
			t.Errorf("%s: %v", content, err)
		}
	}
	for _, bad := range []string{"", "aGVsbG8=", "-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\n"} {
		if _, err := undo.ParsePublicKey([]byte(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}
