// Package signature tells who signed a commit or an annotated tag, by OpenPGP or SSH, and signs commits by SSH.
//
// It computes only: objects and keys are given to it as bytes. It promises that a Signer is returned
// only for a signature that a given key made over exactly this object; of a tag also that it has the
// name and names the commit that it is asked about. What it does not know it refuses by name: X.509,
// SSH certificates, more than one signature, weak hashes.
//
// The limits of a key (valid-after and valid-before of an SSH key, the expiry of an OpenPGP key) are held
// against the time that the object itself gives, as Git does: else history would lose its signatures with
// time. A key that must not count any more has to leave the given keys, or be given with its revocation.
package signature

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/slipway-cd/slipway/gitsource"
)

// Errors on which callers branch. The messages around them say what is missing.
var (
	// ErrUnsigned says that there is no signature.
	ErrUnsigned = errors.New("it is not signed")
	// ErrStranger says that the signature is by a key that is not among those given, or was not meant for this.
	ErrStranger = errors.New("the signer is not trusted")
	// ErrInvalid says that there is a signature, but not by the key that it names over this object.
	ErrInvalid = errors.New("the signature is not valid")
)

// Signer is whose signature was verified.
type Signer struct {
	Name string // the principals of an allowed signer, or the first user id of an OpenPGP key
	Key  string // "SSH key SHA256:...", "OpenPGP key " and a fingerprint
}

// String returns name and key.
func (s Signer) String() string { return s.Name + " (" + s.Key + ")" }

// Keys are the keys whose signatures count. The zero value trusts nobody.
type Keys struct {
	pgp openpgp.EntityList
	ssh []allowedSigner
}

// The names under which ParseKeys takes keys.
const (
	AllowedSigners = "allowed_signers" // the format of ssh-keygen(1)
	armored        = ".asc"
	binary         = ".gpg"
)

// ParseKeys reads keys by the name of what they come from: allowed_signers for SSH, and NAME.asc
// (armored) or NAME.gpg for OpenPGP. Anything else is refused, so that no key is taken for trusted that is not.
func ParseKeys(files map[string][]byte) (Keys, error) {
	var keys Keys
	for _, name := range slices.Sorted(maps.Keys(files)) {
		var err error
		switch {
		case name == AllowedSigners:
			keys.ssh, err = parseAllowedSigners(string(files[name]))
		case strings.HasSuffix(name, armored):
			keys.pgp, err = addArmored(keys.pgp, files[name])
		case strings.HasSuffix(name, binary):
			keys.pgp, err = addBinary(keys.pgp, files[name])
		default:
			err = fmt.Errorf("want the name %s for SSH, or one that ends in %s or %s for OpenPGP", AllowedSigners, armored, binary)
		}
		if err != nil {
			return Keys{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(keys.pgp) == 0 && len(keys.ssh) == 0 {
		return Keys{}, fmt.Errorf("no keys are given; want %s for SSH, NAME%s for OpenPGP", AllowedSigners, armored)
	}
	return keys, nil
}

// Commit returns who signed a commit, of which content is what Git stores.
func (k Keys) Commit(content []byte) (Signer, error) {
	object, err := splitCommit(content)
	if err != nil {
		return Signer{}, err
	}
	return k.verify(object)
}

// Tag returns who signed an annotated tag, of which content is what Git stores. The tag must have the
// name, without refs/tags/, and name the commit itself: a tag that was signed for one version must not vouch for another.
func (k Keys) Tag(content []byte, name string, commit gitsource.ObjectID) (Signer, error) {
	object, err := splitTag(content)
	if err != nil {
		return Signer{}, err
	}
	want := "object " + string(commit) + "\ntype commit\ntag " + name + "\n"
	if !strings.HasPrefix(string(object.payload), want) {
		return Signer{}, fmt.Errorf("%w: the tag was made for another name or commit than %s at %s", ErrInvalid, name, commit)
	}
	return k.verify(object)
}

func (k Keys) verify(o signed) (Signer, error) {
	switch {
	case len(o.signature) == 0:
		return Signer{}, ErrUnsigned
	case strings.HasPrefix(o.signature, beginSSH):
		return k.verifySSH(o)
	case strings.HasPrefix(o.signature, beginPGP):
		return k.verifyPGP(o)
	case strings.HasPrefix(o.signature, beginX509):
		return Signer{}, fmt.Errorf("%w: it is signed by X.509, which is not supported; sign with SSH or OpenPGP", ErrStranger)
	}
	return Signer{}, fmt.Errorf("%w: its kind is not known; sign with SSH or OpenPGP", ErrInvalid)
}
