package expression

import "fmt"

// State is what a Health says about an object.
type State uint8

// The states. Unknown is what an expression that cannot be evaluated gives.
const (
	Unknown State = iota
	InProgress
	Current
	Failed
)

// Health judges the objects of one kind by conditions over self, and over its fields metadata, spec, status and data.
type Health struct {
	current, inProgress, failed *Expression
}

// healthVariables are those of a health check. The fields stand alone, too: that is how Flux writes them.
var healthVariables = []string{"self", "apiVersion", "kind", "metadata", "spec", "status", "data"}

// NewHealth compiles a health check; inProgress and failed may be empty. The error names the one that is wrong.
func NewHealth(current, inProgress, failed string) (Health, error) {
	var h Health
	for _, part := range []struct {
		name, source string
		into         **Expression
	}{{"current", current, &h.current}, {"inProgress", inProgress, &h.inProgress}, {"failed", failed, &h.failed}} {
		if part.source == "" && part.name != "current" {
			continue
		}
		compiled, err := Compile(part.source, healthVariables...)
		if err != nil {
			return Health{}, fmt.Errorf("%s: %w", part.name, err)
		}
		*part.into = compiled
	}
	return h, nil
}

// Judge asks inProgress, failed and current, in this order; when none holds the object is InProgress. An object whose
// controller has not seen its newest generation is InProgress, whatever its status says of an earlier one.
func (h Health) Judge(object map[string]any) (State, string) {
	if behind(object) {
		return InProgress, "its controller has not seen the newest generation"
	}
	variables := map[string]any{"self": object}
	for _, name := range healthVariables[1:] {
		variables[name] = object[name]
		if object[name] == nil {
			variables[name] = map[string]any{} // so that has(status.x) is false, not an error
		}
	}
	for _, part := range []struct {
		condition *Expression
		state     State
	}{{h.inProgress, InProgress}, {h.failed, Failed}, {h.current, Current}} {
		if part.condition == nil {
			continue
		}
		holds, err := part.condition.Holds(variables)
		if err != nil {
			return Unknown, err.Error()
		}
		if holds {
			return part.state, part.condition.String()
		}
	}
	return InProgress, "not yet " + h.current.String()
}

func behind(object map[string]any) bool {
	metadata, _ := object["metadata"].(map[string]any)
	status, _ := object["status"].(map[string]any)
	generation, known := metadata["generation"].(int64)
	observed, reported := status["observedGeneration"].(int64)
	return known && reported && observed < generation
}
