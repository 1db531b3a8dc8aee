package console

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

var update = flag.Bool("update", false, "write the schemas of openapi.json from the types")

// Error is an Answer that says only what went wrong.
type Error struct {
	Error string `json:"error"`
}

// Reports is the answer to GET /v1/reports.
type Reports struct {
	Reports []Received `json:"reports"`
}

// answers are the types that routes take and give.
var answers = map[string]struct{ body, result any }{
	"GET /v1/runs":                      {result: RunPage{}},
	"GET /v1/runs/{id}":                 {result: builder.Run{}},
	"GET /v1/runs/{id}/jobs":            {result: JobList{}},
	"GET /v1/runs/{id}/jobs/{job}/logs": {result: builder.Log{}},
	"POST /v1/runs/{id}/cancel":         {Reason{}, builder.Run{}},
	"POST /v1/runs/{id}/retry":          {result: builder.Run{}},
	"GET /v1/applications":              {result: ApplicationList{}},
	"GET /v1/trace/{subject}":           {result: Chain{}},
	"POST /v1/reverts":                  {v1alpha1.RevertRequest{}, Answer{}},
	"POST /v1/reports":                  {body: Report{}},
	"GET /v1/reports":                   {result: Reports{}},
	"POST /v1/rollouts":                 {body: v1alpha1.SignedRollouts{}},
	"GET /v1/rollouts":                  {result: RolloutList{}},

	"GET /v1/rollouts/{cluster}/{namespace}/{name}": {result: ReportedRollout{}},
}

type document struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Parameters  []struct {
			Name, In string
		} `json:"parameters"`
		RequestBody struct {
			Content map[string]media `json:"content"`
		} `json:"requestBody"`
		Responses map[string]struct {
			Content map[string]media `json:"content"`
		} `json:"responses"`
		Security []map[string][]string `json:"security"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]any `json:"schemas"`
	} `json:"components"`
}

type media struct {
	Schema struct {
		Ref string `json:"$ref"`
	} `json:"schema"`
}

func described(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOpenAPIRoutes: the document names what is served, and nothing else, with the scope that it takes.
func TestOpenAPIRoutes(t *testing.T) {
	d := described(t)
	if d.OpenAPI != "3.1.0" {
		t.Error(d.OpenAPI)
	}
	served := map[string]Scope{"GET /healthz": NoScope, "GET /readyz": NoScope}
	for _, r := range (&Server{}).routes() {
		served[strings.ReplaceAll(r.pattern, "...", "")] = r.scope
	}
	ids := map[string]bool{}
	told := map[string]Scope{}
	for path, methods := range d.Paths {
		for method, operation := range methods {
			pattern := strings.ToUpper(method) + " " + path
			told[pattern] = NoScope
			if len(operation.Security) > 0 {
				scope, err := ParseScope(operation.Security[0]["token"][0])
				if err != nil {
					t.Error(pattern, err)
				}
				told[pattern] = scope
			}
			if operation.OperationID == "" || ids[operation.OperationID] {
				t.Errorf("%s: operationId %q is empty or there twice", pattern, operation.OperationID)
			}
			ids[operation.OperationID] = true
			for _, parameter := range operation.Parameters {
				if in := strings.Contains(path, "{"+parameter.Name+"}"); in != (parameter.In == "path") {
					t.Errorf("%s: parameter %s is in %s", pattern, parameter.Name, parameter.In)
				}
			}
		}
	}
	if !maps.Equal(served, told) {
		t.Errorf("served %v\ntold   %v", served, told)
	}
}

// TestOpenAPITypes: the document's schemas are what the types are encoded to.
func TestOpenAPITypes(t *testing.T) {
	schemas := map[string]any{}
	schemaOf(reflect.TypeFor[Error](), schemas)
	schemaOf(reflect.TypeFor[LogEnd](), schemas)
	schemaOf(reflect.TypeFor[Nudge](), schemas)
	// What is said to the Kubernetes API, or within a payload, is described here, too.
	schemaOf(reflect.TypeFor[v1alpha1.StepApproval](), schemas)
	schemaOf(reflect.TypeFor[v1alpha1.RolloutOrder](), schemas)
	schemaOf(reflect.TypeFor[v1alpha1.RolloutReport](), schemas)
	d := described(t)
	for pattern, types := range answers {
		method, path, _ := strings.Cut(pattern, " ")
		operation, found := d.Paths[path][strings.ToLower(method)]
		if !found {
			t.Errorf("%s is not described", pattern)
			continue
		}
		var body, result string
		for _, m := range operation.RequestBody.Content {
			body = m.Schema.Ref
		}
		for status, response := range operation.Responses {
			for _, m := range response.Content {
				switch {
				case status >= "400" && m.Schema.Ref != "#/components/schemas/Error":
					t.Errorf("%s: %s is not an Error", pattern, status)
				case status < "300" && m.Schema.Ref != "":
					result = m.Schema.Ref
				}
			}
		}
		if want := reference(types.body, schemas); body != want {
			t.Errorf("%s takes %q, want %q", pattern, body, want)
		}
		if want := reference(types.result, schemas); result != want {
			t.Errorf("%s gives %q, want %q", pattern, result, want)
		}
	}
	want, err := json.Marshal(schemas)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		writeSchemas(t, want)
	}
	if got, err := json.Marshal(d.Components.Schemas); err != nil || !bytes.Equal(got, want) && !*update {
		t.Errorf("schemas (go test ./console -update, if this is meant)\ngot  %s\nwant %s\n%v", got, want, err)
	}
}

func writeSchemas(t *testing.T, schemas []byte) {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(openAPI, &whole); err != nil {
		t.Fatal(err)
	}
	whole["components"].(map[string]any)["schemas"] = json.RawMessage(schemas)
	out, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("openapi.json", append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func reference(value any, schemas map[string]any) string {
	if value == nil {
		return ""
	}
	ref, _ := schemaOf(reflect.TypeOf(value), schemas)["$ref"].(string)
	return ref
}

// schemaOf describes how encoding/json writes a type; named structs go into schemas.
func schemaOf(t reflect.Type, schemas map[string]any) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[metav1.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[builder.State]():
		var names []string
		for s := builder.Pending; s <= builder.Skipped; s++ {
			names = append(names, s.String())
		}
		schemas["State"] = map[string]any{"type": "string", "enum": names}
		return map[string]any{"$ref": "#/components/schemas/State"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint64:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case reflect.Struct:
		if _, known := schemas[t.Name()]; !known {
			schemas[t.Name()] = nil // it may hold itself
			properties, required := map[string]any{}, []string{}
			fields(t, properties, &required, schemas)
			slices.Sort(required)
			schema := map[string]any{"type": "object", "properties": properties}
			if len(required) > 0 {
				schema["required"] = required
			}
			schemas[t.Name()] = schema
		}
		return map[string]any{"$ref": "#/components/schemas/" + t.Name()}
	}
	panic("a type that the API does not use: " + t.String())
}

func fields(t reflect.Type, properties map[string]any, required *[]string, schemas map[string]any) {
	for field := range t.Fields() {
		if field.Anonymous && field.Tag.Get("json") == "" {
			fields(field.Type, properties, required, schemas)
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			panic(t.String() + "." + field.Name + ": the API names its fields")
		}
		properties[name] = schemaOf(field.Type, schemas)
		if options == "" {
			*required = append(*required, name)
		}
	}
}
