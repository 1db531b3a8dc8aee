package plan

import "slices"

// Cycle returns the shortest way from name back to itself over the names that each one depends on, beginning with name;
// nil when there is none.
func Cycle(name string, dependsOn map[string][]string) []string {
	from := map[string]string{} // how each was reached first
	for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
		for _, next := range dependsOn[queue[0]] {
			if next == name {
				var way []string
				for at := queue[0]; at != name; at = from[at] {
					way = append(way, at)
				}
				way = append(way, name)
				slices.Reverse(way)
				return way
			}
			if _, reached := from[next]; !reached {
				from[next] = queue[0]
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// Dependents returns all that depend on name, also over others, in order.
func Dependents(name string, dependsOn map[string][]string) []string {
	found := map[string]bool{}
	for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
		for other, names := range dependsOn {
			if !found[other] && slices.Contains(names, queue[0]) {
				found[other] = true
				queue = append(queue, other)
			}
		}
	}
	var all []string
	for other := range found {
		all = append(all, other)
	}
	slices.Sort(all)
	return all
}
