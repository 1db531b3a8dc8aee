package apply

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// comparison walks a live and a wanted object side by side, together with
// those who own their fields.
type comparison struct {
	manager string
	secret  bool
	hide    func(text string) string
	fields  []FieldDiff
}

// value compares what is at path. before owns the live value, after is what we would own.
func (c *comparison) value(path string, live, want any, before, after []ownership) {
	liveMap, liveIsMap := live.(map[string]any)
	wantMap, wantIsMap := want.(map[string]any)
	liveList, liveIsList := live.([]any)
	wantList, wantIsList := want.([]any)
	switch {
	case liveIsMap && wantIsMap:
		c.mappings(path, liveMap, wantMap, before, after)
	case liveIsList && wantIsList && keyed(before, after):
		c.lists(path, liveList, wantList, before, after)
	case !reflect.DeepEqual(live, want), c.taken(before, after):
		field := FieldDiff{Path: path, Live: c.show(path, live), Want: c.show(path, want), Managers: c.others(before)}
		if field.Live == field.Want && !reflect.DeepEqual(live, want) {
			field.Want = "another value" // what differs is masked, or behind the end of what is shown
		}
		c.fields = append(c.fields, field)
	}
}

// taken says whether we would own exactly this field, do not now, and somebody else does.
func (c *comparison) taken(before, after []ownership) bool {
	leaf := slices.ContainsFunc(after, func(o ownership) bool { return len(o.fields) == 0 })
	return leaf && len(ours(before, c.manager)) == 0 && len(before) > 0
}

func (c *comparison) mappings(path string, live, want map[string]any, before, after []ownership) {
	keys := slices.Collect(maps.Keys(live))
	for key := range want {
		if _, both := live[key]; !both {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		matches := func(field string) bool { return field == "f:"+key }
		c.value(join(path, key), live[key], want[key], below(before, matches), below(after, matches))
	}
}

// lists compares items that have a key among their fields, whatever their order.
func (c *comparison) lists(path string, live, want []any, before, after []ownership) {
	items := map[string][2]any{} // by FieldsV1 key
	for side, list := range [2][]any{live, want} {
		for i, item := range list {
			key := itemKey(item, i, before, after)
			pair := items[key]
			pair[side] = item
			items[key] = pair
		}
	}
	for key, pair := range items {
		matches := func(field string) bool { return field == key }
		c.value(path+"["+itemName(key)+"]", pair[0], pair[1], below(before, matches), below(after, matches))
	}
}

// keyed says whether the items of a list are owned one by one.
func keyed(sides ...[]ownership) bool {
	for _, side := range sides {
		for _, o := range side {
			for key := range o.fields {
				if strings.HasPrefix(key, "k:") || strings.HasPrefix(key, "v:") {
					return true
				}
			}
		}
	}
	return false
}

// itemKey finds the FieldsV1 key of a list item, or makes one of its position.
func itemKey(item any, position int, sides ...[]ownership) string {
	for _, side := range sides {
		for _, o := range side {
			for key := range o.fields {
				if describes(key, item) {
					return key
				}
			}
		}
	}
	if fields, is := item.(map[string]any); is && fields["name"] != nil {
		return fmt.Sprintf(`k:{"name":%q}`, fields["name"])
	}
	return fmt.Sprintf("i:%d", position)
}

// describes says whether a FieldsV1 key is that of item.
func describes(key string, item any) bool {
	kind, text, _ := strings.Cut(key, ":")
	var value any
	if json.Unmarshal([]byte(text), &value) != nil {
		return false
	}
	switch kind {
	case "v":
		return same(value, item)
	case "k":
		fields, _ := item.(map[string]any)
		keys, _ := value.(map[string]any)
		for name, part := range keys {
			if !same(part, fields[name]) {
				return false
			}
		}
		return len(keys) > 0
	}
	return false
}

// same compares scalars of differently decoded JSON.
func same(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// itemName is a list key for people: "web", "8080/TCP".
func itemName(key string) string {
	kind, text, _ := strings.Cut(key, ":")
	var keys map[string]any
	if kind != "k" || json.Unmarshal([]byte(text), &keys) != nil {
		return text
	}
	if name, is := keys["name"]; is && len(keys) == 1 {
		return fmt.Sprint(name)
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		parts = append(parts, fmt.Sprint(keys[name]))
	}
	return strings.Join(parts, "/")
}

// others names who owns a live field besides us, at this path or below.
func (c *comparison) others(before []ownership) []string {
	var names []string
	for _, o := range before {
		if o.manager != c.manager && !slices.Contains(names, o.manager) {
			names = append(names, o.manager)
		}
	}
	slices.Sort(names)
	return names
}

// lastApplied is the annotation in which kubectl keeps the whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// maxShown is the most characters of a value in a FieldDiff.
const maxShown = 200

// show renders a value; those of Secrets never appear.
func (c *comparison) show(path string, value any) string {
	if value == nil {
		return ""
	}
	if strings.Contains(path, lastApplied) || c.secret && (strings.HasPrefix(path, "data") || strings.HasPrefix(path, "stringData")) {
		return "(masked)"
	}
	if annotations, is := value.(map[string]any); is && annotations[lastApplied] != nil {
		value = maps.Clone(annotations)
		value.(map[string]any)[lastApplied] = "(masked)"
	}
	content, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	text := c.hide(string(content))
	if len(text) > maxShown {
		return strings.ToValidUTF8(text[:maxShown], "") + "..."
	}
	return text
}

// join appends a map key to a path; keys with dots are quoted.
func join(path, key string) string {
	if strings.ContainsAny(key, ".[]") {
		return path + "[" + key + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
