package signature

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// namespace is what Git signs in.
const namespace = "git"

const (
	magic       = "SSHSIG"
	smallestRSA = 2048 // bits
)

// sshSignature is the content of an armored signature (OpenSSH, PROTOCOL.sshsig).
type sshSignature struct {
	Magic         [6]byte
	Version       uint32
	PublicKey     []byte
	Namespace     string
	Reserved      string
	HashAlgorithm string
	Signature     []byte
}

// sshMessage is what an SSH key signs.
type sshMessage struct {
	Magic         [6]byte
	Namespace     string
	Reserved      string
	HashAlgorithm string
	Hash          []byte
}

// verifySSH checks an SSH signature, then whether its key may make it.
func (k Keys) verifySSH(o signed) (Signer, error) {
	made, key, err := decodeSSH(o.signature)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	name := "SSH key " + ssh.FingerprintSHA256(key)
	if made.Namespace != namespace {
		return Signer{}, fmt.Errorf("%w: it was made by %s for the namespace %q, not for %q", ErrInvalid, name, made.Namespace, namespace)
	}
	if err := checkSSH(made, key, o.payload); err != nil {
		return Signer{}, fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
	}
	why := "which is not among the allowed signers"
	for _, signer := range k.ssh {
		if !bytes.Equal(signer.key, made.PublicKey) {
			continue
		}
		if why = signer.refuses(o.made); why == "" {
			return Signer{Name: signer.principals, Key: name}, nil
		}
	}
	return Signer{}, fmt.Errorf("%w: signed by %s, %s", ErrStranger, name, why)
}

func decodeSSH(armored string) (sshSignature, ssh.PublicKey, error) {
	var made sshSignature
	block, rest := pem.Decode([]byte(armored))
	if block == nil || block.Type != "SSH SIGNATURE" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return made, nil, errors.New("it is no armored SSH signature")
	}
	if err := ssh.Unmarshal(block.Bytes, &made); err != nil {
		return made, nil, fmt.Errorf("it is no SSH signature: %w", err)
	}
	if string(made.Magic[:]) != magic || made.Version != 1 {
		return made, nil, errors.New("it is no SSH signature of version 1")
	}
	key, err := ssh.ParsePublicKey(made.PublicKey)
	if err != nil {
		return made, nil, fmt.Errorf("the key in the SSH signature: %w", err)
	}
	if _, certified := key.(*ssh.Certificate); certified {
		return made, nil, fmt.Errorf("it is made by an SSH certificate (%s), and those are not supported; sign with a plain key", key.Type())
	}
	return made, key, nil
}

// checkSSH checks that key made the signature over payload.
func checkSSH(made sshSignature, key ssh.PublicKey, payload []byte) error {
	message := sshMessage{Namespace: made.Namespace, Reserved: made.Reserved, HashAlgorithm: made.HashAlgorithm}
	copy(message.Magic[:], magic)
	switch made.HashAlgorithm {
	case "sha256":
		sum := sha256.Sum256(payload)
		message.Hash = sum[:]
	case "sha512":
		sum := sha512.Sum512(payload)
		message.Hash = sum[:]
	default:
		return fmt.Errorf("the hash function %q is not supported", made.HashAlgorithm)
	}
	var by ssh.Signature
	if err := ssh.Unmarshal(made.Signature, &by); err != nil {
		return fmt.Errorf("the signature cannot be read: %w", err)
	}
	if key.Type() == ssh.KeyAlgoRSA {
		if by.Format != ssh.KeyAlgoRSASHA256 && by.Format != ssh.KeyAlgoRSASHA512 {
			return fmt.Errorf("the signature algorithm %s is too weak", by.Format)
		}
		if known, ok := key.(ssh.CryptoPublicKey); ok {
			if inner, ok := known.CryptoPublicKey().(*rsa.PublicKey); ok && inner.N.BitLen() < smallestRSA {
				return fmt.Errorf("an RSA key of %d bits is too short; want %d or more", inner.N.BitLen(), smallestRSA)
			}
		}
	}
	if key.Verify(ssh.Marshal(message), &by) != nil {
		return errors.New("the key did not sign this")
	}
	return nil
}

// allowedSigner is a line of an allowed signers file.
type allowedSigner struct {
	principals string // as they are written there
	key        []byte
	namespaces string // a list of patterns; empty for all
	after      time.Time
	before     time.Time
}

// refuses says why a signer may not sign for Git at a time; empty if it may.
func (a allowedSigner) refuses(at time.Time) string {
	switch {
	case a.namespaces != "" && !matches(namespace, a.namespaces):
		return fmt.Sprintf("of %s, who is allowed to sign for the namespaces %q only, not for %q", a.principals, a.namespaces, namespace)
	case !a.after.IsZero() && at.Before(a.after):
		return fmt.Sprintf("of %s, on %s, before it was valid (valid-after %s)", a.principals, at.Format(time.RFC3339), a.after.Format(time.RFC3339))
	case !a.before.IsZero() && at.After(a.before):
		return fmt.Sprintf("of %s, on %s, when it was not valid any more (valid-before %s)", a.principals, at.Format(time.RFC3339), a.before.Format(time.RFC3339))
	}
	return ""
}

// parseAllowedSigners reads a file in the format of ssh-keygen(1), ALLOWED SIGNERS. A line that cannot
// be honoured fails the whole file. Times without Z are UTC here: an agent's own time zone says nothing.
func parseAllowedSigners(content string) ([]allowedSigner, error) {
	var all []allowedSigner
	number := 0
	for line := range strings.SplitSeq(content, "\n") {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		signer, err := parseAllowedSigner(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		all = append(all, signer)
	}
	if len(all) == 0 {
		return nil, errors.New("it names no signer")
	}
	return all, nil
}

func parseAllowedSigner(line string) (allowedSigner, error) {
	signer, rest := allowedSigner{}, ""
	if quoted, found := strings.CutPrefix(line, `"`); found {
		signer.principals, rest, found = strings.Cut(quoted, `"`)
		if !found {
			return signer, errors.New("the principals' quote has no end")
		}
	} else if end := strings.IndexAny(line, " \t"); end > 0 {
		signer.principals, rest = line[:end], line[end:]
	}
	rest = strings.TrimSpace(rest)
	if signer.principals == "" || rest == "" {
		return signer, errors.New("want PRINCIPALS [OPTIONS] KEYTYPE KEY (kim@example.com ssh-ed25519 AAAA)")
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil {
		return signer, fmt.Errorf("the key of %s cannot be read: %w", signer.principals, err)
	}
	if _, certified := key.(*ssh.Certificate); certified {
		return signer, fmt.Errorf("the key of %s is a certificate (%s), and those are not supported; give the plain key", signer.principals, key.Type())
	}
	signer.key = key.Marshal()
	for _, option := range options {
		if err := signer.set(option); err != nil {
			return signer, fmt.Errorf("%s: %w", signer.principals, err)
		}
	}
	if !signer.after.IsZero() && !signer.before.IsZero() && !signer.after.Before(signer.before) {
		return signer, fmt.Errorf("%s: valid-before is not after valid-after", signer.principals)
	}
	return signer, nil
}

// set takes over one option.
func (a *allowedSigner) set(option string) error {
	name, value, _ := strings.Cut(option, "=")
	value = strings.Trim(value, `"`)
	var err error
	switch strings.ToLower(name) {
	case "namespaces":
		if a.namespaces = value; value == "" {
			err = errors.New("namespaces: is empty")
		}
	case "valid-after":
		a.after, err = parseTime(name, value)
	case "valid-before":
		a.before, err = parseTime(name, value)
	case "cert-authority":
		err = errors.New("cert-authority: SSH certificates are not supported; list the keys themselves")
	default:
		err = fmt.Errorf("%s: is no option of an allowed signer", name)
	}
	return err
}

func parseTime(option, value string) (time.Time, error) {
	digits := strings.TrimRight(value, "Zz")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) != len(layout) {
			continue
		}
		if at, err := time.Parse(layout, digits); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s: %q is no time; want YYYYMMDD or YYYYMMDDHHMM[SS], with a Z behind it", option, value)
}

// matches reports whether name is in a list of patterns with * and ?; one with ! before it excludes (match.c, match_pattern_list).
func matches(name, list string) bool {
	found := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, excluded := strings.CutPrefix(pattern, "!")
		if !glob(name, pattern) {
			continue
		}
		if excluded {
			return false
		}
		found = true
	}
	return found
}

func glob(name, pattern string) bool {
	if pattern == "" {
		return name == ""
	}
	if pattern[0] == '*' {
		return glob(name, pattern[1:]) || name != "" && glob(name[1:], pattern)
	}
	return name != "" && (pattern[0] == '?' || pattern[0] == name[0]) && glob(name[1:], pattern[1:])
}
