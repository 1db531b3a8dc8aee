package render

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"
	"time"

	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// sopsTree decrypts documents in place and computes their MAC on the way: a
// SHA-512 over the plain values in the order of the file.
type sopsTree struct {
	metadata    sopsMetadata
	numbers     bool
	block       cipher.Block
	mac         hash.Hash
	encrypted   *regexp.Regexp // nil if the metadata has none
	unencrypted *regexp.Regexp
	values      []string // that were encrypted
}

func newSopsTree(file *sopsFile, key []byte) (*sopsTree, error) {
	t := &sopsTree{metadata: file.metadata, numbers: file.numbers, mac: sha512.New()}
	if t.metadata.EncryptedCommentRegex != "" || t.metadata.UnencryptedCommentRegex != "" {
		return nil, errors.New("is encrypted with SOPS by comments, which is not read (select by keys: encrypted_regex)")
	}
	var err error
	if t.block, err = aes.NewCipher(key); err != nil {
		return nil, err
	}
	for _, one := range []struct {
		text string
		into **regexp.Regexp
	}{{t.metadata.EncryptedRegex, &t.encrypted}, {t.metadata.UnencryptedRegex, &t.unencrypted}} {
		if one.text == "" {
			continue
		}
		if *one.into, err = regexp.Compile(one.text); err != nil {
			return nil, fmt.Errorf("its sops metadata has a bad regular expression: %w", err)
		}
	}
	if t.metadata.MACOnlyEncrypted {
		// By the format: the SHA-256 of "sops", so that the two kinds of MAC differ.
		t.mac.Write([]byte{
			0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b,
			0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
		})
	}
	return t, nil
}

// walk decrypts what is below node. Items of a list have the path of the list, by the format.
func (t *sopsTree) walk(node *kyaml.Node, at []string, depth int) error {
	if depth > maxDepth*2 {
		return limitf("nested more than %d deep: the limit", maxDepth*2)
	}
	node.HeadComment, node.LineComment, node.FootComment = plainComment(node.HeadComment), plainComment(node.LineComment), plainComment(node.FootComment)
	switch node.Kind {
	case kyaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			if key.Kind != kyaml.ScalarNode || key.ShortTag() != "!!str" {
				return fmt.Errorf("%s: SOPS has keys that are text alone", fieldPath{steps: at}.join(""))
			}
			key.HeadComment, key.LineComment, key.FootComment = plainComment(key.HeadComment), plainComment(key.LineComment), plainComment(key.FootComment)
			if err := t.walk(value, append(at[:len(at):len(at)], key.Value), depth+1); err != nil {
				return err
			}
		}
		return nil
	case kyaml.SequenceNode:
		for _, item := range node.Content {
			if err := t.walk(item, at, depth+1); err != nil {
				return err
			}
		}
		return nil
	case kyaml.ScalarNode:
		return t.scalar(node, at)
	}
	return fmt.Errorf("%s: SOPS writes no YAML aliases", fieldPath{steps: at}.join(""))
}

// plainComment drops encrypted comments: nothing reads them.
func plainComment(comment string) string {
	if strings.Contains(comment, sopsEncrypted) {
		return ""
	}
	return comment
}

func (t *sopsTree) scalar(node *kyaml.Node, at []string) error {
	if node.ShortTag() == "!!null" {
		return nil // by the format: neither encrypted nor part of the MAC
	}
	field := fieldPath{steps: at}.join("")
	encrypted := t.isEncrypted(at)
	if encrypted {
		if node.ShortTag() != "!!str" {
			return fmt.Errorf("%s: is not encrypted, but its SOPS metadata says so (somebody edited the file without sops)", field)
		}
		plain, kind, err := t.open(node.Value, strings.Join(at, ":")+":")
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		if err := setPlain(node, plain, kind); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		t.values = append(t.values, plain)
	}
	if encrypted || !t.metadata.MACOnlyEncrypted {
		content, err := t.macBytes(node)
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		t.mac.Write(content)
	}
	return nil
}

// isEncrypted applies the rules of the metadata in the order of the format: later ones win.
func (t *sopsTree) isEncrypted(at []string) bool {
	any := func(match func(step string) bool) bool {
		for _, step := range at {
			if match(step) {
				return true
			}
		}
		return false
	}
	encrypted := true
	if suffix := t.metadata.UnencryptedSuffix; suffix != "" {
		encrypted = !any(func(step string) bool { return strings.HasSuffix(step, suffix) })
	}
	if suffix := t.metadata.EncryptedSuffix; suffix != "" {
		encrypted = any(func(step string) bool { return strings.HasSuffix(step, suffix) })
	}
	if t.unencrypted != nil && any(t.unencrypted.MatchString) {
		encrypted = false
	}
	if t.encrypted != nil {
		encrypted = any(t.encrypted.MatchString)
	}
	return encrypted
}

// open decrypts one value; authenticated is what it is bound to.
func (t *sopsTree) open(text, authenticated string) (plain, kind string, err error) {
	if text == "" {
		return "", "str", nil
	}
	found := regexp.MustCompile(`^ENC\[AES256_GCM,data:([^,]*),iv:([^,]+),tag:([^,]+),type:([a-z0-9]+)\]$`).FindStringSubmatch(text)
	if found == nil {
		return "", "", errors.New("is not encrypted, but its SOPS metadata says so (somebody edited the file without sops)")
	}
	var parts [3][]byte
	for i := range parts {
		if parts[i], err = base64.StdEncoding.DecodeString(found[i+1]); err != nil {
			return "", "", errors.New("its encrypted value is damaged")
		}
	}
	data, iv, tag := parts[0], parts[1], parts[2]
	if len(iv) < 12 || len(tag) != 16 {
		return "", "", errors.New("its encrypted value is damaged")
	}
	gcm, err := cipher.NewGCMWithNonceSize(t.block, len(iv))
	if err != nil {
		return "", "", err
	}
	opened, err := gcm.Open(nil, iv, append(data, tag...), []byte(authenticated))
	if err != nil {
		return "", "", errors.New("its encrypted value does not belong there, or was changed (encrypt the file again with sops)")
	}
	return string(opened), found[4], nil
}

func setPlain(node *kyaml.Node, plain, kind string) error {
	tag := map[string]string{"str": "!!str", "bytes": "!!str", "int": "!!int", "int64": "!!int", "float": "!!float", "bool": "!!bool"}[kind]
	switch tag {
	case "":
		return fmt.Errorf("SOPS values of type %s are not read", kind)
	case "!!str":
		// Not SetString, which encodes what is not UTF-8; and in quotes, since "yes" is a boolean to older parsers.
		node.Tag, node.Style, node.Value = tag, kyaml.DoubleQuotedStyle, plain
		if strings.Contains(plain, "\n") {
			node.Style = kyaml.LiteralStyle
		}
		return nil
	case "!!bool":
		value, err := strconv.ParseBool(plain)
		if err != nil {
			return errors.New("its encrypted value is no boolean")
		}
		plain = strconv.FormatBool(value)
	}
	node.Tag, node.Style, node.Value = tag, 0, plain
	return nil
}

// macBytes is a plain value as the MAC has it.
func (t *sopsTree) macBytes(node *kyaml.Node) ([]byte, error) {
	if node.ShortTag() == "!!str" {
		return []byte(node.Value), nil
	}
	var value any
	if err := node.Decode(&value); err != nil {
		return nil, errors.New("cannot be read")
	}
	if number, ok := value.(int); ok && t.numbers {
		value = float64(number)
	}
	switch value := value.(type) {
	case string:
		return []byte(value), nil
	case int:
		return []byte(strconv.Itoa(value)), nil
	case int64:
		return []byte(strconv.FormatInt(value, 10)), nil
	case uint64:
		return []byte(strconv.FormatUint(value, 10)), nil
	case float64:
		return []byte(strconv.FormatFloat(value, 'f', -1, 64)), nil
	case bool:
		if value {
			return []byte("True"), nil
		}
		return []byte("False"), nil
	case time.Time:
		return value.MarshalText()
	}
	return nil, fmt.Errorf("a value of type %s is not read from files of SOPS", node.ShortTag())
}

// verify compares the MAC of what was read with the one in the file.
func (t *sopsTree) verify() error {
	modified, err := time.Parse(time.RFC3339, t.metadata.LastModified)
	if err != nil {
		return errors.New("its sops metadata has no lastmodified")
	}
	want, _, err := t.open(t.metadata.MAC, modified.Format(time.RFC3339))
	if err != nil {
		return errors.New("its SOPS MAC cannot be decrypted: the metadata was changed (encrypt the file again with sops)")
	}
	got := fmt.Sprintf("%X", t.mac.Sum(nil))
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return errors.New("its SOPS MAC does not match: somebody changed, moved or removed values without sops")
	}
	return nil
}
