package policy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// Signature is what the header X-Signature says of content that is sent to a webhook: "sha256=" and the HMAC in hex.
func Signature(key Secret, content []byte) string {
	mac := hmac.New(sha256.New, []byte(key.Reveal()))
	mac.Write(content)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
