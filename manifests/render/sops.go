package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Files that SOPS encrypted are decrypted where they are read, so that whatever
// renders sees plain files. The format is that of SOPS 3, https://getsops.io;
// its own packages bring the SDKs of every cloud, of which age needs none.

const (
	sopsKey       = "sops" // of the metadata, at the top of a document
	sopsEncrypted = "ENC[AES256_GCM,"
	agekeySuffix  = ".agekey"
)

// sopsMetadata is what SOPS notes in a file, as far as it is needed to decrypt with age.
type sopsMetadata struct {
	Age       []sopsAge `yaml:"age"`
	KeyGroups []struct {
		Age []sopsAge `yaml:"age"`
	} `yaml:"key_groups"`
	LastModified            string `yaml:"lastmodified"`
	MAC                     string `yaml:"mac"`
	UnencryptedSuffix       string `yaml:"unencrypted_suffix"`
	EncryptedSuffix         string `yaml:"encrypted_suffix"`
	UnencryptedRegex        string `yaml:"unencrypted_regex"`
	EncryptedRegex          string `yaml:"encrypted_regex"`
	UnencryptedCommentRegex string `yaml:"unencrypted_comment_regex"`
	EncryptedCommentRegex   string `yaml:"encrypted_comment_regex"`
	MACOnlyEncrypted        bool   `yaml:"mac_only_encrypted"`
}

// sopsAge is the data key of a file, encrypted for one recipient.
type sopsAge struct {
	Recipient string `yaml:"recipient"`
	Enc       string `yaml:"enc"`
}

// sopsFile is an encrypted file: its documents without metadata, and how to write them in plain.
type sopsFile struct {
	documents []*kyaml.Node
	metadata  sopsMetadata
	numbers   bool // all numbers are floating-point, as in JSON
	write     func(documents []*kyaml.Node) ([]byte, error)
}

// decrypted returns the content of the file at name in plain. Files that SOPS has not encrypted are returned as they are.
func (r *repository) decrypted(name string, content []byte) ([]byte, error) {
	if r.sealed || !bytes.Contains(content, []byte(sopsEncrypted)) || !bytes.Contains(content, []byte(sopsKey)) {
		return content, nil
	}
	file, err := parseSops(name, content)
	if err != nil {
		return nil, r.refused(&Error{Path: name, Cause: err})
	}
	if file == nil {
		return content, nil
	}
	if r.keys == nil {
		return nil, r.refused(&Error{Path: name, Cause: errors.New("is encrypted with SOPS (say in spec.decryption which Secret has the key)")})
	}
	plain, values, err := r.keys.decrypt(file)
	r.hide(values...)
	if err != nil {
		return nil, r.refused(&Error{Path: name, Cause: err})
	}
	r.hide(string(plain))
	return plain, nil
}

// parseSops recognises a format by name and content; nil if the file is none that SOPS encrypted.
func parseSops(name string, content []byte) (*sopsFile, error) {
	switch {
	case regexp.MustCompile(`(?m)^sops_mac=ENC\[`).Match(content):
		return parseSopsDotenv(content)
	case regexp.MustCompile(`(?m)^\[sops\]`).Match(content):
		return nil, errors.New("is encrypted with SOPS as an INI file, which is not read (use YAML, JSON, dotenv or binary)")
	case slices.Contains([]string{".yaml", ".yml"}, path.Ext(name)) || slices.Contains(kustomizationNames(), path.Base(name)):
		return parseSopsYAML(content)
	case bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")):
		return parseSopsJSON(content, path.Ext(name) == ".json")
	}
	return nil, nil
}

func parseSopsYAML(content []byte) (*sopsFile, error) {
	file := &sopsFile{write: writeYAML}
	decoder := kyaml.NewDecoder(bytes.NewReader(content))
	found := false
	for {
		var document kyaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(document.Content) == 0 {
			return nil, nil // the one who parses it reports it
		}
		metadata := takeKey(document.Content[0], sopsKey)
		if metadata != nil && !found {
			if err := metadata.Decode(&file.metadata); err != nil {
				return nil, errors.New("the sops metadata cannot be read")
			}
			found = file.metadata.MAC != ""
		}
		file.documents = append(file.documents, document.Content[0])
	}
	if !found {
		return nil, nil
	}
	return file, nil
}

func parseSopsJSON(content []byte, document bool) (*sopsFile, error) {
	root, err := decodeJSONNode(content)
	if err != nil {
		return nil, nil
	}
	metadata := takeKey(root, sopsKey)
	if metadata == nil {
		return nil, nil
	}
	file := &sopsFile{documents: []*kyaml.Node{root}, numbers: true, write: writeJSON}
	if err := metadata.Decode(&file.metadata); err != nil || file.metadata.MAC == "" {
		return nil, errors.New("the sops metadata cannot be read")
	}
	if !document { // any file at all, as the one value of a document
		file.write = func(documents []*kyaml.Node) ([]byte, error) {
			data := takeKey(documents[0], "data")
			if data == nil || data.Kind != kyaml.ScalarNode {
				return nil, errors.New("is no binary file of SOPS: it has no data")
			}
			return []byte(data.Value), nil
		}
	}
	return file, nil
}

// takeKey removes a key from a mapping and returns its value, nil if there is none.
func takeKey(mapping *kyaml.Node, key string) *kyaml.Node {
	if mapping.Kind != kyaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			value := mapping.Content[i+1]
			mapping.Content = slices.Delete(mapping.Content, i, i+2)
			return value
		}
	}
	return nil
}

// sopsKeys are the age identities of an Application.
type sopsKeys struct {
	secret     string // that holds them
	identities []age.Identity
	recipients []string // of the identities, for messages
}

// keysOf reads the identities that spec.Decryption names; nil if it names none.
func keysOf(spec Spec) (*sopsKeys, error) {
	if spec.Decryption == nil {
		return nil, nil
	}
	if spec.Decryption.Provider != v1alpha1.DecryptionSOPS {
		return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("spec.decryption.provider: %q is not known", spec.Decryption.Provider)}
	}
	reference := v1alpha1.InputReference{Kind: v1alpha1.InputSecret, Name: spec.Decryption.SecretRef.Name}
	data, _, err := spec.input("spec.decryption.secretRef", reference)
	if err != nil {
		return nil, err
	}
	keys := &sopsKeys{secret: reference.Name}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if !strings.HasSuffix(name, agekeySuffix) {
			continue
		}
		identities, err := age.ParseIdentities(bytes.NewReader(data[name]))
		if err != nil { // the cause may quote the key
			return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("spec.decryption: key %s of Secret %s holds no age identities (AGE-SECRET-KEY-1..., one a line)", name, reference.Name)}
		}
		keys.add(identities)
	}
	if len(keys.identities) == 0 {
		return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("spec.decryption: Secret %s has no key that ends in %s", reference.Name, agekeySuffix)}
	}
	return keys, nil
}

func (k *sopsKeys) add(identities []age.Identity) {
	k.identities = append(k.identities, identities...)
	for _, one := range identities {
		switch one := one.(type) {
		case *age.X25519Identity:
			k.recipients = append(k.recipients, one.Recipient().String())
		case *age.HybridIdentity:
			k.recipients = append(k.recipients, one.Recipient().String())
		}
	}
}

// dataKey decrypts the key of a file.
func (k *sopsKeys) dataKey(metadata sopsMetadata) ([]byte, error) {
	recipients := metadata.Age
	switch {
	case len(metadata.KeyGroups) == 1:
		recipients = append(recipients, metadata.KeyGroups[0].Age...)
	case len(metadata.KeyGroups) > 1:
		return nil, errors.New("is encrypted with SOPS for several key groups, which is not read (use one)")
	}
	if len(recipients) == 0 {
		return nil, errors.New("is encrypted with SOPS, but for no age key; other keys are not read")
	}
	var names []string
	for _, one := range recipients {
		plain, err := age.Decrypt(armor.NewReader(strings.NewReader(one.Enc)), k.identities...)
		var stranger *age.NoIdentityMatchError
		if errors.As(err, &stranger) {
			names = append(names, one.Recipient)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("its key for %s is damaged: %w", one.Recipient, err)
		}
		key, err := io.ReadAll(io.LimitReader(plain, 64))
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("its key for %s is damaged", one.Recipient)
		}
		return key, nil
	}
	return nil, fmt.Errorf("is encrypted with SOPS for %s; Secret %s has the keys of %s (add the missing key to it, or encrypt the file for one of these)",
		strings.Join(names, ", "), k.secret, strings.Join(k.recipients, ", "))
}

// decrypt returns file in plain, with the values that were encrypted.
func (k *sopsKeys) decrypt(file *sopsFile) (plain []byte, values []string, err error) {
	key, err := k.dataKey(file.metadata)
	if err != nil {
		return nil, nil, err
	}
	tree, err := newSopsTree(file, key)
	if err != nil {
		return nil, nil, err
	}
	for _, document := range file.documents {
		if err := tree.walk(document, nil, 0); err != nil {
			return nil, tree.values, err
		}
	}
	if err := tree.verify(); err != nil {
		return nil, tree.values, err
	}
	plain, err = file.write(file.documents)
	return plain, tree.values, err
}

func writeYAML(documents []*kyaml.Node) ([]byte, error) {
	var out bytes.Buffer
	encoder := kyaml.NewEncoder(&out)
	for _, document := range documents {
		if err := encoder.Encode(document); err != nil {
			return nil, errors.New("cannot be written in plain")
		}
	}
	return out.Bytes(), encoder.Close()
}

func writeJSON(documents []*kyaml.Node) ([]byte, error) {
	var out, indented bytes.Buffer
	if err := encodeJSONNode(&out, documents[0]); err != nil {
		return nil, err
	}
	err := json.Indent(&indented, out.Bytes(), "", "\t")
	return indented.Bytes(), err
}
