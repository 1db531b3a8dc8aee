package revert

import (
	"bytes"
	"fmt"
	"slices"
)

// maxMerged bounds a file that is merged by lines, in bytes.
const maxMerged = 4 << 20

// maxEdits bounds the work of a comparison: files that differ in more lines are not merged.
const maxEdits = 1000

// Text merges by lines (diff3: Khanna, Kunal, Pierce, "A Formal Investigation of
// Diff3", 2007). Changes that touch the same or neighbouring lines conflict,
// unless both sides say the same; why then says where, in lines of ours.
func Text(base, ours, theirs []byte) (merged []byte, why string) {
	b, o, t := lines(base), lines(ours), lines(theirs)
	if whole, ok := choose(b, o, t); ok { // however much differs
		return bytes.Join(whole, nil), ""
	}
	inOurs, fine := match(b, o)
	inTheirs, alsoFine := match(b, t)
	if !fine || !alsoFine {
		return nil, fmt.Sprintf("differs in more than %d lines", maxEdits)
	}
	var out []byte
	var i, j, k int // next line of base, ours, theirs
	for {
		// A line of base that both sides kept ends the chunk before it.
		stable := i
		for stable < len(b) && (inOurs[stable] < 0 || inTheirs[stable] < 0) {
			stable++
		}
		oEnd, tEnd := len(o), len(t)
		if stable < len(b) {
			oEnd, tEnd = inOurs[stable], inTheirs[stable]
		}
		chunk, ok := choose(b[i:stable], o[j:oEnd], t[k:tEnd])
		if !ok {
			return nil, fmt.Sprintf("was changed on both sides at lines %d to %d", j+1, max(j+1, oEnd))
		}
		for _, line := range chunk {
			out = append(out, line...)
		}
		if stable == len(b) {
			return out, ""
		}
		out = append(out, b[stable]...)
		i, j, k = stable+1, oEnd+1, tEnd+1
	}
}

func choose(base, ours, theirs [][]byte) ([][]byte, bool) {
	same := func(x, y [][]byte) bool { return slices.EqualFunc(x, y, bytes.Equal) }
	switch {
	case same(base, theirs), same(ours, theirs):
		return ours, true
	case same(base, ours):
		return theirs, true
	default:
		return nil, false
	}
}

// lines keeps the line ends, so that a missing last one is a change like any other.
func lines(text []byte) [][]byte {
	return slices.Collect(bytes.Lines(text))
}

// match returns for each line of a its partner in b, or -1: a longest common
// subsequence, by the greedy algorithm of Myers, "An O(ND) Difference Algorithm
// and Its Variations", 1986. It gives up beyond maxEdits.
func match(a, b [][]byte) (partner []int, ok bool) {
	partner = make([]int, len(a))
	for i := range partner {
		partner[i] = -1
	}
	head := 0
	for head < len(a) && head < len(b) && bytes.Equal(a[head], b[head]) {
		partner[head] = head
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && bytes.Equal(a[len(a)-1-tail], b[len(b)-1-tail]) {
		tail++
		partner[len(a)-tail] = len(b) - tail
	}
	pairs, ok := walk(a[head:len(a)-tail], b[head:len(b)-tail])
	for _, p := range pairs {
		partner[head+p[0]] = head + p[1]
	}
	return partner, ok
}

// walk returns the pairs of equal lines on a shortest edit path.
func walk(a, b [][]byte) (pairs [][2]int, ok bool) {
	limit := min(len(a)+len(b), maxEdits)
	// reach[d][k+d] is the furthest x on diagonal k after d edits.
	var reach [][]int
	for d := 0; d <= limit; d++ {
		row := make([]int, 2*d+1)
		for k := -d; k <= d; k += 2 {
			x := from(reach, d, k)
			for x < len(a) && x-k < len(b) && x >= 0 && x-k >= 0 && bytes.Equal(a[x], b[x-k]) {
				x++
			}
			row[k+d] = x
			if x >= len(a) && x-k >= len(b) {
				return trace(append(reach, row), d, k), true
			}
		}
		reach = append(reach, row)
	}
	return nil, false
}

// from is where diagonal k is entered by edit d: by a line of b, or by a line of a.
func from(reach [][]int, d, k int) int {
	if d == 0 {
		return 0
	}
	previous := reach[d-1]
	if byB(previous, d, k) {
		return previous[k+1+d-1]
	}
	return previous[k-1+d-1] + 1
}

func trace(reach [][]int, d, k int) [][2]int {
	var pairs [][2]int
	for ; d >= 0; d-- {
		end, start := reach[d][k+d], from(reach, d, k)
		for x := end - 1; x >= start; x-- {
			pairs = append(pairs, [2]int{x, x - k})
		}
		if d == 0 {
			break
		}
		if byB(reach[d-1], d, k) {
			k++
		} else {
			k--
		}
	}
	return pairs
}

// byB says whether the furthest path enters diagonal k, by edit d, with a line of b.
func byB(previous []int, d, k int) bool {
	return k == -d || (k != d && previous[k-1+d-1] < previous[k+1+d-1])
}
