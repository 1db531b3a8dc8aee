// Package typo guesses which word was meant by one that nobody knows, for the
// end of an error message: a name in a pipeline, a delivery or a template.
package typo

import (
	"fmt"
	"strings"
)

// WayOut is how to go on from an unknown word: with the known one that is meant,
// else with one of all of them.
func WayOut(word string, known []string) string {
	best, least := "", 4 // more than three edits away is another word
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least && d < min(len(word), len(k)) {
			best, least = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %q?", best)
	case len(known) == 0:
		return "there are none"
	}
	return "known are " + strings.Join(known, ", ")
}

// distance is Levenshtein's, in bytes. Words too long to be a typing error are simply far.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(diagonal+cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
