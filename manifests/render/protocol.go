package render

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/slipway-cd/slipway/gitsource"
)

// Operations of the protocol. The parent sends opRender; the child answers with
// any number of requests for files, each of which the parent answers, and then
// with opDone or opFailed. One render at a time.
const (
	opRender = "render" // parent: Spec, Memory
	opStat   = "stat"   // child: Path
	opRead   = "read"   // child: Path
	opList   = "list"   // child: Path
	opAnswer = "answer" // parent: Path (resolved), Kind, Names, payload, Failure
	opDone   = "done"   // child: payload is a JSON array of objects
	opFailed = "failed" // child: Failure
)

// message is the head of a frame.
type message struct {
	Op      string              `json:"op"`
	Path    string              `json:"path,omitempty"`
	Kind    gitsource.EntryKind `json:"kind,omitempty"`
	Names   []string            `json:"names,omitempty"`
	Spec    *Spec               `json:"spec,omitempty"`
	Memory  int64               `json:"memory,omitempty"`
	Failure *failure            `json:"failure,omitempty"`
}

// failure is an Error on its way through the pipe.
type failure struct {
	Path  string `json:"path"`
	Line  int    `json:"line,omitempty"`
	Cause string `json:"cause"`
	Limit bool   `json:"limit,omitempty"`
}

func failureOf(err error, path string) *failure {
	var located *Error
	if errors.As(err, &located) {
		return &failure{Path: located.Path, Line: located.Line, Cause: located.Cause.Error(), Limit: errors.Is(err, ErrLimit)}
	}
	return &failure{Path: path, Cause: err.Error(), Limit: errors.Is(err, ErrLimit)}
}

func (f *failure) err() *Error {
	cause := errors.New(f.Cause)
	if f.Limit {
		cause = limitText(f.Cause)
	}
	return &Error{Path: f.Path, Line: f.Line, Cause: cause}
}

// limitError is an error that is ErrLimit without repeating its text.
type limitError struct{ text string }

func (e limitError) Error() string        { return e.text }
func (e limitError) Is(target error) bool { return target == ErrLimit }

func limitText(text string) error { return limitError{text: text} }

func limitf(format string, args ...any) error { return limitError{text: fmt.Sprintf(format, args...)} }

// Bounds of a frame: a directory of a million names, and the largest payload either side may send.
const (
	maxHeadBytes    = 32 << 20
	maxPayloadBytes = maxReadBytes
)

// pipe carries frames: two lengths of four bytes, a JSON head, a payload.
type pipe struct {
	in  *bufio.Reader
	out *bufio.Writer
}

func newPipe(in io.Reader, out io.Writer) *pipe {
	return &pipe{in: bufio.NewReaderSize(in, 64<<10), out: bufio.NewWriterSize(out, 64<<10)}
}

func (p *pipe) send(head message, payload []byte) error {
	content, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if len(content) > maxHeadBytes || len(payload) > maxPayloadBytes {
		return fmt.Errorf("frame of %d bytes is too large", len(content)+len(payload))
	}
	var lengths [8]byte
	binary.BigEndian.PutUint32(lengths[:4], uint32(len(content)))
	binary.BigEndian.PutUint32(lengths[4:], uint32(len(payload)))
	for _, part := range [][]byte{lengths[:], content, payload} {
		if _, err := p.out.Write(part); err != nil {
			return err
		}
	}
	return p.out.Flush()
}

// receive returns io.EOF when the other side is gone between two frames.
func (p *pipe) receive() (message, []byte, error) {
	var lengths [8]byte
	if _, err := io.ReadFull(p.in, lengths[:]); err != nil {
		return message{}, nil, err
	}
	headBytes, payloadBytes := binary.BigEndian.Uint32(lengths[:4]), binary.BigEndian.Uint32(lengths[4:])
	if headBytes > maxHeadBytes || payloadBytes > maxPayloadBytes {
		return message{}, nil, errors.New("frame is too large")
	}
	content := make([]byte, headBytes+payloadBytes)
	if _, err := io.ReadFull(p.in, content); err != nil {
		return message{}, nil, err
	}
	var head message
	if err := json.Unmarshal(content[:headBytes], &head); err != nil {
		return message{}, nil, err
	}
	return head, content[headBytes:], nil
}
