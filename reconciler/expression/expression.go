package expression

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
)

// Bounds of one expression. The cost is that of CEL's own estimate: about one for each step.
const (
	maxLength = 4096 // bytes
	costLimit = 100_000
)

// Expression is a compiled condition. It is safe for concurrent use.
type Expression struct {
	source  string
	program cel.Program
}

// Compile checks that source is a condition over variables, which may hold anything. The error says where it is not.
func Compile(source string, variables ...string) (*Expression, error) {
	program, err := compile(source, "condition", variables, cel.BoolType)
	if err != nil {
		return nil, err
	}
	return &Expression{source: source, program: program}, nil
}

// compile checks that source is one of kinds, as far as that can be known.
func compile(source, what string, variables []string, kinds ...*cel.Type) (cel.Program, error) {
	if len(source) > maxLength {
		return nil, fmt.Errorf("the expression has %d bytes, at most %d are allowed", len(source), maxLength)
	}
	options := []cel.EnvOption{cel.OptionalTypes(), ext.Strings(), ext.Lists(), ext.Sets()}
	for _, name := range variables {
		options = append(options, cel.Variable(name, cel.DynType))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, fmt.Errorf("%q: %w", source, compact(issues.Err()))
	}
	kind := ast.OutputType()
	if !slices.ContainsFunc(append(kinds, cel.DynType), kind.IsExactType) {
		return nil, fmt.Errorf("%q: is a %s, not a %s", source, kind, what)
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", source, err)
	}
	return program, nil
}

// compact leaves the first line of an error of CEL: the others draw an arrow.
func compact(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(strings.TrimPrefix(first, "ERROR: <input>:"))
}

// Holds evaluates the condition. It fails when a field is missing, types do not fit, or the cost limit is reached.
func (e *Expression) Holds(variables map[string]any) (bool, error) {
	value, _, err := e.program.Eval(variables)
	if err != nil {
		return false, fmt.Errorf("%q: %w", e.source, err)
	}
	answer, is := value.(types.Bool)
	if !is {
		return false, fmt.Errorf("%q: is a %s, not a condition", e.source, value.Type().TypeName())
	}
	return bool(answer), nil
}

// String returns the source.
func (e *Expression) String() string { return e.source }
