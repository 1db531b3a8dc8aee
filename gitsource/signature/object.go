package signature

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// How signatures begin (gpg-interface.c).
const (
	beginSSH     = "-----BEGIN SSH SIGNATURE-----"
	beginPGP     = "-----BEGIN PGP SIGNATURE-----"
	beginMessage = "-----BEGIN PGP MESSAGE-----"
	beginX509    = "-----BEGIN SIGNED MESSAGE-----"
)

// signed is an object taken apart.
type signed struct {
	payload   []byte // what the signature is over
	signature string // empty if there is none
	made      time.Time
}

// splitCommit takes the header gpgsig out of a commit; those of other hash functions are not signed
// either (commit.c, parse_buffer_signed_by_header).
func splitCommit(content []byte) (signed, error) {
	var o signed
	var signature strings.Builder
	payload := make([]byte, 0, len(content))
	found, in, other := 0, false, false
	rest := content
	for len(rest) > 0 {
		line := rest
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			line = rest[:end+1]
		}
		if line[0] == '\n' {
			payload = append(payload, rest...) // the message
			break
		}
		rest = rest[len(line):]
		switch {
		case line[0] == ' ' && in:
			signature.Write(line[1:])
			continue
		case line[0] == ' ' && other:
			continue
		}
		in, other = bytes.HasPrefix(line, []byte("gpgsig ")), false
		switch {
		case in:
			found++
			signature.Write(line[len("gpgsig "):])
		case bytes.HasPrefix(line, []byte("gpgsig")):
			other = true
		default:
			payload = append(payload, line...)
		}
	}
	if found > 1 {
		return o, fmt.Errorf("%w: the commit has %d signatures, and only one can be judged", ErrInvalid, found)
	}
	o.payload, o.signature = payload, signature.String()
	return o.dated("committer ")
}

// splitTag cuts the signature off the end of a tag: what comes from the last line on that begins one (gpg-interface.c,
// parse_signed_buffer).
func splitTag(content []byte) (signed, error) {
	at := len(content)
	for start := 0; start < len(content); {
		for _, begin := range []string{beginSSH, beginPGP, beginMessage, beginX509} {
			if bytes.HasPrefix(content[start:], []byte(begin)) {
				at = start
			}
		}
		end := bytes.IndexByte(content[start:], '\n')
		if end < 0 {
			break
		}
		start += end + 1
	}
	o := signed{payload: content[:at], signature: string(content[at:])}
	return o.dated("tagger ")
}

// dated reads when the object says that it was made. An object without a signature needs no date.
func (o signed) dated(header string) (signed, error) {
	if o.signature == "" {
		return o, nil
	}
	head, _, _ := bytes.Cut(o.payload, []byte("\n\n"))
	for line := range strings.SplitSeq(string(head), "\n") {
		person, found := strings.CutPrefix(line, header)
		if !found {
			continue
		}
		fields := strings.Fields(person[strings.LastIndexByte(person, '>')+1:])
		if len(fields) == 0 {
			break
		}
		seconds, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			break
		}
		o.made = time.Unix(seconds, 0).UTC()
		return o, nil
	}
	return o, fmt.Errorf("%w: the object does not say when it was made (%s)", ErrInvalid, strings.TrimSpace(header))
}
