package policy

// Secret is a value that cannot be printed: every way of formatting or
// encoding it yields a placeholder. Reveal is the only way to the value.
type Secret struct{ value string }

const redacted = "[redacted]"

// NewSecret wraps value.
func NewSecret(value string) Secret { return Secret{value: value} }

// Reveal returns the value, for the one call that needs it.
func (s Secret) Reveal() string { return s.value }

// Empty reports whether there is no value.
func (s Secret) Empty() bool { return s.value == "" }

func (s Secret) String() string   { return redacted }
func (s Secret) GoString() string { return redacted }

// MarshalText covers JSON, YAML and structured logging.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
