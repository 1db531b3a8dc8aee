package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// print writes v as JSON, or as human says.
func (g *globals) print(v any, human func(io.Writer)) error {
	if g.output == "json" {
		encoder := json.NewEncoder(g.out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(v)
	}
	human(g.out)
	return nil
}

// complain writes an error, in the form that was asked for.
func (g *globals) complain(w io.Writer, err error) {
	if g.output == "json" {
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // there is nobody left to tell
		return
	}
	fmt.Fprintln(w, "slipway:", err)
}

// table writes rows under a header, in columns.
func table(w io.Writer, header string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(header, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush()
}

// brief shortens an image reference or a revision to what people compare.
func brief(reference string) string {
	name, digest, found := strings.Cut(reference, "@")
	if !found {
		return reference
	}
	if at := strings.LastIndexByte(name, '/'); at >= 0 {
		name = name[at+1:]
	}
	algorithm, hex, _ := strings.Cut(digest, ":")
	if len(hex) > 12 {
		hex = hex[:12]
	}
	return name + "@" + algorithm + ":" + hex
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
