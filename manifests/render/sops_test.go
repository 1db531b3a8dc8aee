package render

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const sopsTime = "2026-11-26T12:00:00Z"

// encryptor writes files as SOPS does.
type encryptor struct {
	*testing.T
	to    []string // recipients
	only  string   // encrypted_regex; empty for all
	mac   hash.Hash
	block cipher.Block
	enc   []map[string]string
}

func newEncryptor(t *testing.T, only string, to ...string) *encryptor {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	e := &encryptor{T: t, to: to, only: only, mac: sha512.New(), block: block}
	for _, one := range to {
		recipient, err := age.ParseX25519Recipient(one)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		armored := armor.NewWriter(&text)
		writer, err := age.Encrypt(armored, recipient)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write(key); err != nil {
			t.Fatal(err)
		}
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		if err := armored.Close(); err != nil {
			t.Fatal(err)
		}
		e.enc = append(e.enc, map[string]string{"recipient": one, "enc": text.String()})
	}
	return e
}

func (e *encryptor) seal(plain, kind, authenticated string) string {
	iv := make([]byte, 32)
	if _, err := rand.Read(iv); err != nil {
		e.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(e.block, len(iv))
	if err != nil {
		e.Fatal(err)
	}
	sealed := gcm.Seal(nil, iv, []byte(plain), []byte(authenticated))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("ENC[AES256_GCM,data:%s,iv:%s,tag:%s,type:%s]", encode(sealed[:len(sealed)-16]), encode(iv), encode(sealed[len(sealed)-16:]), kind)
}

func (e *encryptor) walk(node *kyaml.Node, at []string) {
	switch node.Kind {
	case kyaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			e.walk(node.Content[i+1], append(at[:len(at):len(at)], node.Content[i].Value))
		}
	case kyaml.SequenceNode:
		for _, item := range node.Content {
			e.walk(item, at)
		}
	case kyaml.ScalarNode:
		kind := map[string]string{"!!str": "str", "!!int": "int", "!!float": "float", "!!bool": "bool"}[node.ShortTag()]
		if kind == "" {
			return
		}
		plain := node.Value
		if kind == "bool" {
			plain = strings.ToUpper(plain[:1]) + plain[1:]
		}
		e.mac.Write([]byte(plain))
		matches := e.only == ""
		for _, step := range at {
			matches = matches || regexp.MustCompile(e.only).MatchString(step)
		}
		if matches && plain != "" {
			node.Style, node.Tag, node.Value = 0, "!!str", e.seal(plain, kind, strings.Join(at, ":")+":")
		}
	}
}

func (e *encryptor) metadata() map[string]any {
	return map[string]any{
		"age": e.enc, "lastmodified": sopsTime, "mac": e.seal(fmt.Sprintf("%X", e.mac.Sum(nil)), "str", sopsTime),
		"encrypted_regex": e.only, "version": "3.11.0",
	}
}

// yaml encrypts all documents of content.
func (e *encryptor) yaml(content string) string {
	var roots []*kyaml.Node
	for _, document := range splitDocuments([]byte(content)) {
		var node kyaml.Node
		if err := kyaml.Unmarshal(document.content, &node); err != nil {
			e.Fatal(err)
		}
		if len(node.Content) == 0 {
			continue
		}
		e.walk(node.Content[0], nil)
		roots = append(roots, node.Content[0])
	}
	var out bytes.Buffer
	encoder := kyaml.NewEncoder(&out)
	metadata := e.metadata()
	for _, root := range roots {
		var value kyaml.Node
		if err := value.Encode(metadata); err != nil {
			e.Fatal(err)
		}
		root.Content = append(root.Content, textNode("sops"), &value)
		if err := encoder.Encode(root); err != nil {
			e.Fatal(err)
		}
	}
	return out.String()
}

// json encrypts a document, or any content as the data of one.
func (e *encryptor) json(content string, binary bool) string {
	if binary {
		encoded, _ := json.Marshal(map[string]string{"data": content})
		content = string(encoded)
	}
	root, err := decodeJSONNode([]byte(content))
	if err != nil {
		e.Fatal(err)
	}
	e.walk(root, nil)
	metadata, err := json.Marshal(e.metadata())
	if err != nil {
		e.Fatal(err)
	}
	value, err := decodeJSONNode(metadata)
	if err != nil {
		e.Fatal(err)
	}
	root.Content = append(root.Content, textNode("sops"), value)
	text, err := writeJSON([]*kyaml.Node{root})
	if err != nil {
		e.Fatal(err)
	}
	return string(text)
}

func (e *encryptor) dotenv(lines ...string) string {
	var out strings.Builder
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		node := textNode(value)
		e.walk(node, []string{key})
		fmt.Fprintf(&out, "%s=%s\n", key, node.Value)
	}
	metadata := e.metadata()
	for i, one := range e.enc {
		fmt.Fprintf(&out, "sops_age__list_%d__map_enc=%s\nsops_age__list_%d__map_recipient=%s\n", i, strings.ReplaceAll(one["enc"], "\n", `\n`), i, one["recipient"])
	}
	fmt.Fprintf(&out, "sops_lastmodified=%s\nsops_mac=%s\n", sopsTime, metadata["mac"])
	return out.String()
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func decrypting(path string, keys map[string]string) Spec {
	return Spec{
		Path: path, Application: "app", Namespace: "n", Inputs: []Input{secretInput(keys)},
		Decryption: &v1alpha1.DecryptionSpec{Provider: v1alpha1.DecryptionSOPS, SecretRef: v1alpha1.LocalRef{Name: "keys"}},
	}
}

const sopsSecret = "hunter2-hunter2"

func sopsManifest() string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  pw: " + sopsSecret + "\n  lines: |\n    a: b\n    c\n  empty: ''\n  number: '5'\n  agreed: 'yes'\n"
}

// Each kind of file at each place that reads it; and nothing of them on disk, nor in the memo's Set of a ConfigMap.
func TestSops(t *testing.T) {
	identity, other := newIdentity(t), newIdentity(t)
	to := identity.Recipient().String()
	encrypt := func() *encryptor { return newEncryptor(t, "", to) }
	repo := files{
		"folder/a.yaml": newEncryptor(t, "^(data|stringData)$", other.Recipient().String(), to).yaml(sopsManifest() + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {x: why}\n"),
		"folder/b.json": newEncryptor(t, "^spec$", to).json(`{"apiVersion":"example.org/v1","kind":"Planet","metadata":{"name":"p"},"spec":{"moons":2,"big":true,"weights":[1.5,7],"none":null,"pw":"`+sopsSecret+`"}}`, false),
		"kust/kustomization.yaml": "resources: [../folder/a.yaml]\ngeneratorOptions: {disableNameSuffixHash: true}\n" +
			"secretGenerator:\n- {name: env, envs: [secret.env]}\n- {name: file, files: [blob.bin, app.yaml]}\n" +
			"patches: [{path: patch.yaml}]\n",
		"kust/secret.env": encrypt().dotenv("A="+sopsSecret, "B=x=y"),
		"kust/blob.bin":   encrypt().json("binary "+sopsSecret, true),
		"kust/app.yaml":   encrypt().yaml("a: {b: " + sopsSecret + "}\n"),
		"kust/patch.yaml": newEncryptor(t, "^stringData$", to).yaml("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {patched: " + sopsSecret + "}\n"),
		"envs/a.yaml":     encrypt().yaml("a: " + sopsSecret + "\nlist: [x, 3, true, 1.5]\n"),
	}.with(valuesChart())
	repo["envs/a.yaml"] = encrypt().yaml("a: " + sopsSecret + "\nlist: [x, 3, true, 1.5]\n")
	dir := t.TempDir()
	renderer := newRenderer(t, func(o *Options) { o.MemoDir = dir })
	keys := map[string]string{"a.agekey": "# comment\n" + newIdentity(t).String() + "\n", "b.agekey": identity.String(), "ignored": "x"}
	helm := decrypting("chart", keys)
	helm.Helm = &v1alpha1.HelmSpec{ValuesFiles: []string{"envs/a.yaml"}}
	for _, test := range []struct {
		spec Spec
		want []string
	}{
		{decrypting("folder", keys), []string{
			`ConfigMap c map[x:why] <nil>`, `Secret s <nil> map[agreed:yes empty: lines:a: b` + "\nc\n" + ` number:5 pw:hunter2-hunter2]`, `Planet p <nil> <nil>`,
		}},
		{decrypting("kust", keys), []string{
			`ConfigMap c map[x:why] <nil>`,
			`Secret env map[A:` + base64.StdEncoding.EncodeToString([]byte(sopsSecret)) + ` B:eD15] <nil>`,
			`Secret file map[app.yaml:` + base64.StdEncoding.EncodeToString([]byte("a: {b: \""+sopsSecret+"\"}\n")) + ` blob.bin:` + base64.StdEncoding.EncodeToString([]byte("binary "+sopsSecret)) + `] <nil>`,
			`Secret s <nil> map[agreed:yes empty: lines:a: b` + "\nc\n" + ` number:5 patched:hunter2-hunter2 pw:hunter2-hunter2]`,
		}},
		{helm, []string{`ConfigMap cm map[values:{"a":"hunter2-hunter2","b":"chart","c":"chart","d":"chart","e":{"deep":"chart"},"list":["x",3,true,1.5]}] <nil>`}},
	} {
		set := mustRender(t, renderer, repo, test.spec).Set
		var got []string
		for _, object := range set.Objects {
			got = append(got, fmt.Sprint(object.GetKind(), " ", object.GetName(), " ", object.Object["data"], " ", object.Object["stringData"]))
			if object.GetKind() == "Planet" {
				if spec := fmt.Sprintf("%#v", object.Object["spec"]); !strings.Contains(spec, `"moons":2`) || !strings.Contains(spec, `"big":true`) || !strings.Contains(spec, "1.5, 7") {
					t.Errorf("the planet is %s", spec)
				}
			}
		}
		if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", test.spec.Path, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
		if !mustRender(t, renderer, repo, test.spec).Memoised {
			t.Errorf("%s: not memoised in memory", test.spec.Path)
		}
	}
	mustRender(t, renderer, shop(), prod())
	grepMemo(t, dir, 1, sopsSecret, base64.StdEncoding.EncodeToString([]byte(sopsSecret)), identity.String())
}

func TestSopsRefusals(t *testing.T) {
	identity, other := newIdentity(t), newIdentity(t)
	to := identity.Recipient().String()
	good := newEncryptor(t, "^stringData$", to).yaml(sopsManifest())
	keys := map[string]string{"a.agekey": identity.String()}
	two := newEncryptor(t, "^stringData$", to).yaml("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  a: " + sopsSecret + "\n  b: other-value\n")
	values := regexp.MustCompile(`(a|b): (ENC\[[^\]]*\])`).FindAllStringSubmatch(two, 2)
	swapped := strings.NewReplacer(values[0][2], values[1][2], values[1][2], values[0][2]).Replace(two)
	without := func(spec Spec) Spec { spec.Decryption = nil; return spec }
	mac := regexp.MustCompile(`(?m)^( +mac: ).*$`)
	for name, test := range map[string]struct {
		content string
		spec    Spec
		want    string
	}{
		"no decryption":  {good, without(decrypting("app", keys)), "app/a.yaml: is encrypted with SOPS (say in spec.decryption which Secret has the key)"},
		"another key":    {good, decrypting("app", map[string]string{"a.agekey": other.String()}), "app/a.yaml: is encrypted with SOPS for " + to + "; Secret keys has the keys of " + other.Recipient().String()},
		"no key":         {good, decrypting("app", map[string]string{"age.txt": identity.String()}), "app: spec.decryption: Secret keys has no key that ends in .agekey"},
		"bad key":        {good, decrypting("app", map[string]string{"a.agekey": identity.String()[:30]}), "app: spec.decryption: key a.agekey of Secret keys holds no age identities"},
		"values swapped": {swapped, decrypting("app", keys), "app/a.yaml: stringData.a: its encrypted value does not belong there"},
		"open edited":    {strings.Replace(two, "name: s", "name: t", 1), decrypting("app", keys), "app/a.yaml: its SOPS MAC does not match"},
		"value in plain": {strings.Replace(two, values[0][2], "plain", 1), decrypting("app", keys), "app/a.yaml: stringData.a: is not encrypted, but its SOPS metadata says so"},
		"value removed":  {regexp.MustCompile(`(?m)^ +a: .*\n`).ReplaceAllString(two, ""), decrypting("app", keys), "app/a.yaml: its SOPS MAC does not match"},
		"mac of another": {mac.ReplaceAllString(two, "${1}"+values[0][2]), decrypting("app", keys), "app/a.yaml: its SOPS MAC cannot be decrypted"},
		"several groups": {regexp.MustCompile(`(?m)^( +)version:`).ReplaceAllString(two, "${1}key_groups: [{age: []}, {age: []}]\n${1}version:"), decrypting("app", keys), "several key groups"},
		"alias":          {strings.Replace(strings.Replace(two, "metadata: {name: s}", "metadata: &m {name: s}", 1), "stringData:", "copy: *m\nstringData:", 1), decrypting("app", keys), "SOPS writes no YAML aliases"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newRenderer(t, nil).Render(t.Context(), files{"app/a.yaml": test.content}.snapshot(), test.spec)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
			for _, text := range []string{sopsSecret, identity.String()[16:30]} {
				if err != nil && strings.Contains(err.Error(), text) {
					t.Errorf("the error has %q: %v", text, err)
				}
			}
		})
	}
	kept := without(decrypting("app", keys))
	kept.KeepEncrypted = true
	set := mustRender(t, newRenderer(t, nil), files{"app/a.yaml": good}, kept).Set
	if text := fmt.Sprint(set.Objects[0].Object["stringData"]); !strings.Contains(text, sopsEncrypted) {
		t.Errorf("kept as %s", text)
	}
	ini := files{"app/kustomization.yaml": "secretGenerator: [{name: a, files: [a.ini]}]\n", "app/a.ini": "a=ENC[AES256_GCM,data:x]\n[sops]\nmac=ENC[AES256_GCM,data:x]\n"}
	if _, err := newRenderer(t, nil).Render(t.Context(), ini.snapshot(), decrypting("app", keys)); err == nil || !strings.Contains(err.Error(), "app/a.ini: is encrypted with SOPS as an INI file") {
		t.Errorf("got %v", err)
	}
}

// A decrypted value that breaks what comes after it is not in the error.
func TestSopsValuesAreNotInErrors(t *testing.T) {
	identity := newIdentity(t)
	keys := map[string]string{"a.agekey": identity.String()}
	content := newEncryptor(t, "^(labels|name)$", identity.Recipient().String()).yaml("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + sopsSecret + ", labels: {a: 987654}}\n")
	for name, repo := range map[string]files{
		"label": {"app/a.yaml": content},
		"twice": {"app/a.yaml": strings.Replace(content, "labels", "labels", 1), "app/b.yaml": content},
	} {
		_, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), decrypting("app", keys))
		if err == nil || strings.Contains(err.Error(), sopsSecret) || strings.Contains(err.Error(), "987654") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzSops wants an answer for any bytes that look like a file of SOPS, and no panic.
func FuzzSops(f *testing.F) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a.yaml", []byte("a: ENC[AES256_GCM,data:x,iv:x,tag:x,type:str]\nsops: {mac: x, age: [{recipient: x, enc: y}]}\n"))
	f.Add("a.json", []byte(`{"a":"ENC[AES256_GCM,data:x]","sops":{"mac":"x","lastmodified":"x"}}`))
	f.Add("a.env", []byte("a=ENC[AES256_GCM,data:x]\nsops_mac=ENC[x\nsops_age__list_0__map_enc=x\n"))
	f.Add("a.bin", []byte(`{"data":["ENC[AES256_GCM,"],"sops":{"mac":"x"}}`))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		file, err := parseSops(name, content)
		if err != nil || file == nil {
			return
		}
		keys := &sopsKeys{secret: "keys", identities: []age.Identity{identity}}
		if _, _, err := keys.decrypt(file); err == nil {
			t.Error("decrypted with a key that nobody encrypted for")
		}
		tree, err := newSopsTree(file, make([]byte, 32))
		if err != nil {
			return
		}
		for _, document := range file.documents {
			if tree.walk(document, nil, 0) != nil {
				return
			}
		}
		if tree.verify() == nil {
			t.Error("verified with a key that nobody encrypted with")
		}
	})
}
