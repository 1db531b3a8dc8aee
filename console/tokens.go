package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/policy"
)

// Scope is what a token lets its bearer do.
type Scope uint8

// The scopes; each includes those before it. NoScope is the zero value.
const (
	NoScope Scope = iota
	Read          // see runs and logs
	Write         // cancel and retry them
)

// String returns "nothing", "read" or "write".
func (s Scope) String() string { return [...]string{"nothing", "read", "write"}[min(s, Write)] }

// Token lets its bearer use the API. The secret itself is not kept.
type Token struct {
	Name  string
	Scope Scope
	Hash  [sha256.Size]byte // of the secret
}

// tokenPrefix makes a token easy to find where it should not be.
const tokenPrefix = "slipway_"

// NewToken makes a secret, and the line that admits it.
func NewToken(name string, scope Scope) (secret policy.Secret, line string, err error) {
	words := map[Scope]string{Read: "read", Write: "write"}
	if strings.ContainsAny(name, " \t\r\n#") || name == "" || words[scope] == "" {
		return policy.Secret{}, "", fmt.Errorf("token %q: want a name without spaces and the scope read or write", name)
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return policy.Secret{}, "", fmt.Errorf("token %s: %w", name, err)
	}
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(random)
	hash := sha256.Sum256([]byte(text))
	return policy.NewSecret(text), fmt.Sprintf("%s %s sha256:%s", name, words[scope], hex.EncodeToString(hash[:])), nil
}

// ParseTokens reads lines of NewToken; empty ones and those that begin with # are left out.
func ParseTokens(content []byte) ([]Token, error) {
	var tokens []Token
	var faults []error
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		token, err := parseToken(line)
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w (want NAME read|write sha256:HEX, as slipway-server token prints it)", number, err))
			continue
		}
		tokens = append(tokens, token)
	}
	return tokens, errors.Join(faults...)
}

func parseToken(line string) (Token, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return Token{}, fmt.Errorf("%d fields", len(fields))
	}
	scope, err := ParseScope(fields[1])
	if err != nil {
		return Token{}, err
	}
	token := Token{Name: fields[0], Scope: scope}
	text, found := strings.CutPrefix(fields[2], "sha256:")
	hash, err := hex.DecodeString(text)
	if !found || err != nil || copy(token.Hash[:], hash) != sha256.Size || len(hash) != sha256.Size {
		return Token{}, errors.New("no SHA-256") // the text may be the secret itself
	}
	return token, nil
}

// find returns the token with a secret; it compares with every one, in a time that does not depend on which fits.
func find(tokens []Token, secret string) (Token, bool) {
	hash := sha256.Sum256([]byte(secret))
	var found Token
	for _, token := range tokens {
		if subtle.ConstantTimeCompare(hash[:], token.Hash[:]) == 1 {
			found = token
		}
	}
	return found, found.Scope != NoScope
}

// ParseScope reads "read" or "write".
func ParseScope(text string) (Scope, error) {
	for _, scope := range []Scope{Read, Write} {
		if scope.String() == text {
			return scope, nil
		}
	}
	return NoScope, fmt.Errorf("scope %q: want read or write (write includes read)", text)
}
