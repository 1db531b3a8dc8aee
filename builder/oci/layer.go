package oci

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is a file or folder of a layer. All belong to root.
type entry struct {
	name    string // "app/shop"; folders end in /
	mode    int64
	size    int64
	content io.Reader
}

// layer is a compressed archive in a file, or in memory where content is set.
type layer struct {
	file           string
	content        []byte
	digest, diffID v1.Hash
	size           int64
}

// Digest, DiffID and the others implement v1.Layer.
func (l *layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is the digest of the archive before compression.
func (l *layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Compressed returns what is pushed.
func (l *layer) Compressed() (io.ReadCloser, error) {
	if l.content != nil {
		return io.NopCloser(bytes.NewReader(l.content)), nil
	}
	return os.Open(l.file)
}

// Uncompressed returns the archive.
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	compressed, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	content, err := gzip.NewReader(compressed)
	if err != nil {
		_ = compressed.Close()
		return nil, err
	}
	return &both{Reader: content, under: compressed}, nil
}

// both closes what lies under a reader.
type both struct {
	io.Reader
	under io.Closer
}

func (b *both) Close() error { return b.under.Close() }

// Size is that of what is pushed, in bytes.
func (l *layer) Size() (int64, error) { return l.size, nil }

// MediaType is that of OCI.
func (l *layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// writeLayer writes entries, sorted, as a compressed archive of which nothing depends on when, where and by whom it was
// made. Times are 1970-01-01, not that of the commit: so a program that a commit did not change is not sent again.
func writeLayer(to io.Writer, entries []entry) (*layer, error) {
	digest, diffID := sha256.New(), sha256.New()
	sent := &counted{next: io.MultiWriter(to, digest)}
	compressor, err := gzip.NewWriterLevel(sent, gzip.DefaultCompression) // its header has neither name nor time
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(io.MultiWriter(compressor, diffID))
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Size: e.size, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if e.content == nil {
			continue
		}
		if _, err := io.Copy(archive, e.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	if err := compressor.Close(); err != nil {
		return nil, err
	}
	return &layer{digest: hashOf(digest), diffID: hashOf(diffID), size: sent.bytes}, nil
}

func hashOf(sum hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum.Sum(nil))}
}

type counted struct {
	next  io.Writer
	bytes int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.next.Write(p)
	c.bytes += int64(n)
	return n, err
}

// programLayer holds the program at /app/NAME, and nothing else.
func programLayer(p program, scratch string) (*layer, error) {
	f, err := os.CreateTemp(scratch, "layer-")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := writeLayer(f, []entry{
		{name: "app/", mode: 0o755},
		{name: path.Join("app", p.name), mode: 0o755, size: p.size, content: io.NewSectionReader(p.file, 0, p.size)},
	})
	if err != nil {
		return nil, err
	}
	l.file = f.Name()
	return l, f.Close()
}

// baseLayer is what an image without a base has: a user that is not root, a place for temporary files, and certificates
// where some were given.
func baseLayer(certificates []byte) (*layer, error) {
	entries := []entry{
		{name: "etc/", mode: 0o755},
		text("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"),
		text("etc/group", "root:x:0:\nnonroot:x:65532:\n"),
		{name: "tmp/", mode: 0o1777},
	}
	if len(certificates) > 0 {
		entries = append(entries, entry{name: "etc/ssl/", mode: 0o755}, entry{name: "etc/ssl/certs/", mode: 0o755},
			text("etc/ssl/certs/ca-certificates.crt", string(certificates)))
	}
	var content bytes.Buffer
	l, err := writeLayer(&content, entries)
	if err != nil {
		return nil, err
	}
	l.content = content.Bytes()
	return l, nil
}

func text(name, content string) entry {
	return entry{name: name, mode: 0o644, size: int64(len(content)), content: strings.NewReader(content)}
}
