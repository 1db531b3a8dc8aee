package expression

import (
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// Number is a compiled expression for a number. It is safe for concurrent use.
type Number struct {
	source  string
	program cel.Program
}

// CompileNumber checks that source is a number over variables, which may hold anything. The error says where it is not.
func CompileNumber(source string, variables ...string) (*Number, error) {
	program, err := compile(source, "number", variables, cel.DoubleType, cel.IntType, cel.UintType)
	if err != nil {
		return nil, err
	}
	return &Number{source: source, program: program}, nil
}

// errNoNumber says nothing about what there is: an answer of a server may hold what nobody should read.
var errNoNumber = errors.New("it gives no number (is a field missing, or of another type?)")

// Value evaluates the expression. It fails when a field is missing, when the result is anything but a number, and when the
// cost limit is reached; the error shows nothing of the variables. Text that looks like a number is none: double(x) makes it one.
func (n *Number) Value(variables map[string]any) (float64, error) {
	value, _, err := n.program.Eval(variables)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", n.source, errNoNumber)
	}
	switch number := value.(type) {
	case types.Double:
		return float64(number), nil
	case types.Int:
		return float64(number), nil
	case types.Uint:
		return float64(number), nil
	}
	return 0, fmt.Errorf("%q: %w", n.source, errNoNumber)
}
