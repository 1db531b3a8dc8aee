package progressive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// row is one line of a table of what was measured.
type row struct{ what, seen, target string }

// table prints what BENCH.md shows, into the file SLIPWAY_BENCH_TABLE too.
func table(b *testing.B, title string, rows []row) {
	b.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "\n| %s | seen | target |\n|---|---|---|\n", title)
	for _, r := range rows {
		fmt.Fprintf(&text, "| %s | %s | %s |\n", r.what, r.seen, r.target)
	}
	b.Log(text.String())
	path := os.Getenv("SLIPWAY_BENCH_TABLE")
	if path == "" {
		return
	}
	file, err := os.OpenFile(filepath.Clean(path), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // a table for people
	if err != nil {
		b.Fatal(err)
	}
	_, err = file.WriteString(text.String())
	if err := errors.Join(err, file.Close()); err != nil {
		b.Fatal(err)
	}
}

// spread is the least, the median and the most.
func spread(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }
	return fmt.Sprintf("%s / **%s** / %s s", seconds(sorted[0]), seconds(sorted[len(sorted)/2]), seconds(sorted[len(sorted)-1]))
}
