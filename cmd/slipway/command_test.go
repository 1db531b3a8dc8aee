package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/promoter"
)

var update = flag.Bool("update", false, "write the golden files")

// command runs one command line in an environment of its own and returns what it said.
func command(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, complaints bytes.Buffer
	g := &globals{out: &out, env: func(key string) string { return env[key] }}
	code = execute(t.Context(), g, args, func(err error) { g.complain(&complaints, err) })
	return code, out.String(), complaints.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test ./cmd/slipway -update, if this is meant)\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

func TestHelp(t *testing.T) {
	t.Setenv("HOME", "/home/user")
	t.Setenv("XDG_DATA_HOME", "")
	root := rootCommand(&globals{out: &bytes.Buffer{}, env: func(string) string { return "" }})
	_, out, _ := command(t, nil, "--help")
	golden(t, "help/slipway", out)
	seen := map[string]bool{}
	for _, cmd := range root.Commands() {
		t.Run(cmd.Name(), func(t *testing.T) {
			if seen[cmd.Name()] {
				t.Error("is there twice")
			}
			seen[cmd.Name()] = true
			if cmd.Short == "" || cmd.Example == "" {
				t.Error("a command says what it does, and shows it")
			}
			if _, out, _ := command(t, nil, cmd.Name(), "--help"); cmd.Name() != "completion" && cmd.Name() != "help" {
				golden(t, "help/"+cmd.Name(), out)
			}
		})
	}
}

// Each example has to be a command line that is understood.
func TestExamplesParse(t *testing.T) {
	for _, cmd := range rootCommand(&globals{}).Commands() {
		for line := range strings.Lines(cmd.Example) {
			line, _, _ = strings.Cut(line, "#")
			line, _, _ = strings.Cut(line, ">")
			at := strings.Index(line, "slipway ")
			if at < 0 {
				continue
			}
			words := split(line[at:])[1:]
			t.Run(strings.Join(words, " "), func(t *testing.T) {
				root := rootCommand(&globals{})
				found, rest, err := root.Find(words)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(found.ParseFlags(rest), found.ValidateRequiredFlags()); err != nil {
					t.Fatal(err)
				}
				if check := found.Args; check != nil {
					if err := check(found, found.Flags().Args()); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// split cuts a line into words as a shell does, with double quotes only.
func split(line string) []string {
	var words []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

func TestWrongUsage(t *testing.T) {
	identity := map[string]string{"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com"}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":        {[]string{"promte"}, "promte"},
		"unknown flag":           {[]string{"status", "--chek"}, "--chek"},
		"no environment":         {[]string{"promote", "shop"}, "env"},
		"no app":                 {[]string{"promote", "--env", "dev"}, "arg"},
		"output":                 {[]string{"version", "-o", "yaml"}, "human or json"},
		"image without digest":   {[]string{"promote", "shop", "--env", "dev", "--image", "example.com/shop"}, "sha256:DIGEST"},
		"image with half digest": {[]string{"promote", "shop", "--env", "dev", "--image", "example.com/shop@sha256:12"}, "--image"},
		"hold half a digest":     {[]string{"hold", "shop", "--env", "dev", "-m", "why", "--image", "sha256:12"}, "--image"},
		"freeze without an end":  {[]string{"freeze", "dev", "-m", "why"}, "--until"},
		"freeze with two ends":   {[]string{"freeze", "dev", "-m", "why", "--for", "1h", "--until", "2030-01-01T00:00:00Z"}, "either"},
		"freeze until never":     {[]string{"freeze", "dev", "-m", "why", "--until", "never"}, "2027-01-04T08:00:00Z"},
		"install without URL":    {[]string{"install", "--cluster", "dev"}, "url"},
		"enrol and apply":        {[]string{"install", "--cluster", "dev", "--url", "https://git.example/fleet.git", "--apply", "--new-key", "x"}, "two steps"},
		"lift until":             {[]string{"freeze", "dev", "-m", "why", "--lift", "--for", "1h"}, "--lift"},
		"test bed and cluster":   {[]string{"up", "--test-bed", "--kubeconfig", "x"}, "--test-bed"},
		"bad cluster name":       {[]string{"init", "x", "--cluster", "../x"}, "../x"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, complaint := command(t, identity, append(c.args, "--repo", "/nowhere")...)
			if code != exitUsage || out != "" || !strings.Contains(complaint, c.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want exit code 2 and %q on stderr", code, out, complaint, c.want)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errNo, exitNo},
		{fmt.Errorf("wrapped: %w", errNo), exitNo},
		{&promoter.HeldError{}, exitNo},
		{fmt.Errorf("wrapped: %w", &promoter.FrozenError{}), exitNo},
		{&promoter.ConflictError{}, exitNo},
		{usage("wrong"), exitUsage},
		{context.Canceled, exitFailed},
		{errors.New("anything else"), exitFailed},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestErrorsAsJSON(t *testing.T) {
	code, out, complaint := command(t, nil, "freeze", "dev", "-m", "why", "-o", "json", "--repo", "/nowhere")
	var said struct{ Error string }
	if err := json.Unmarshal([]byte(complaint), &said); err != nil || said.Error == "" || out != "" || code == exitDone {
		t.Errorf("exit code %d, stdout %q, stderr %q: %v; want an object with error on stderr", code, out, complaint, err)
	}
}

func TestVersion(t *testing.T) {
	if _, out, _ := command(t, nil, "version", "-o", "json"); out != "{\n  \"version\": \"dev\"\n}\n" {
		t.Errorf("got %q", out)
	}
	if _, out, _ := command(t, nil, "version"); out != "slipway dev\n" {
		t.Errorf("got %q", out)
	}
}
