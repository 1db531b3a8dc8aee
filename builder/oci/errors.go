package oci

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/slipway-cd/slipway/policy"
)

// Error says what could not be done with which image at which registry. Its text holds no credentials, so it does not
// lead to the cause, whose text might; errors.Is and errors.As ask the cause all the same.
type Error struct {
	Image    string // reference, as it was asked for
	Registry string // host
	Verb     string // "pull", "push", ...
	text     string
	cause    error
}

func (e *Error) Error() string {
	if strings.HasPrefix(e.Image, e.Registry) {
		return fmt.Sprintf("image %s: cannot %s: %s", e.Image, e.Verb, e.text)
	}
	return fmt.Sprintf("image %s: cannot %s at registry %s: %s", e.Image, e.Verb, e.Registry, e.text)
}

// Is reports whether the cause is target.
func (e *Error) Is(target error) bool { return errors.Is(e.cause, target) }

// Status is the HTTP status of the registry's last answer; 0 if there was none.
func (e *Error) Status() int {
	if answer, ok := errors.AsType[*transport.Error](e.cause); ok {
		return answer.StatusCode
	}
	return 0
}

// Temporary reports whether trying again may help: the registry did not answer, not wholly, or asks to come back.
func (e *Error) Temporary() bool {
	if answer, ok := errors.AsType[*transport.Error](e.cause); ok {
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
			return false
		}
		return answer.StatusCode >= http.StatusInternalServerError || answer.Temporary()
	}
	if dns, ok := errors.AsType[*net.DNSError](e.cause); ok {
		return !dns.IsNotFound
	}
	if network, ok := errors.AsType[*net.OpError](e.cause); ok && network != nil {
		return true
	}
	for _, passing := range []error{
		context.DeadlineExceeded, context.Canceled, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOSPC, syscall.EMFILE,
	} {
		if errors.Is(e.cause, passing) {
			return true
		}
	}
	return false
}

const maxCause = 600 // bytes of an answer that are worth showing

// queries of addresses carry tokens and signatures of storage behind the registry.
func queries() *regexp.Regexp { return regexp.MustCompile(`\?[^\s"']+`) }

// failed makes an Error, without what the logins know.
func (r *Registry) failed(verb, image, host string, cause error) error {
	if known, ok := errors.AsType[*Error](cause); ok {
		return known
	}
	text := queries().ReplaceAllString(cause.Error(), "?...")
	for _, login := range r.logins {
		text = without(text, login.Username, login.Password)
	}
	if len(text) > maxCause {
		text = strings.ToValidUTF8(text[:maxCause], "") + "..."
	}
	answer, answered := errors.AsType[*transport.Error](cause)
	if answered && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
		if _, known := r.logins[host]; known {
			text += " (check user name and password of the login for " + host + ")"
		} else {
			text += " (there is no login for " + host + ")"
		}
	}
	return &Error{Image: image, Registry: host, Verb: verb, text: text, cause: cause}
}

func without(text, username string, password policy.Secret) string {
	if password.Empty() {
		return text
	}
	secret := password.Reveal()
	basic := base64.StdEncoding.EncodeToString([]byte(username + ":" + secret))
	return strings.NewReplacer(basic, password.String(), secret, password.String()).Replace(text)
}
