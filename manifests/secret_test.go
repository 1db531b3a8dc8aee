package manifests

import (
	"encoding/json"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestEncodeData(t *testing.T) {
	const head = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}`
	for name, c := range map[string]struct{ before, after string }{
		"text alone":       {head + `,"stringData":{"a":"1"}}`, `{"apiVersion":"v1","data":{"a":"MQ=="},"kind":"Secret","metadata":{"name":"s"}}`},
		"text wins":        {head + `,"data":{"a":"Mg==","b":"Mg=="},"stringData":{"a":"1"}}`, `{"apiVersion":"v1","data":{"a":"MQ==","b":"Mg=="},"kind":"Secret","metadata":{"name":"s"}}`},
		"no text":          {head + `,"data":{"a":"Mg=="}}`, `{"apiVersion":"v1","data":{"a":"Mg=="},"kind":"Secret","metadata":{"name":"s"}}`},
		"not text":         {head + `,"stringData":{"a":{"b":"1"}}}`, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":{"b":"1"}}}`},
		"data is none":     {head + `,"data":"x","stringData":{"a":"1"}}`, `{"apiVersion":"v1","data":"x","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":"1"}}`},
		"of another group": {`{"apiVersion":"example.com/v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":"1"}}`, `{"apiVersion":"example.com/v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":"1"}}`},
	} {
		object := &unstructured.Unstructured{}
		if err := json.Unmarshal([]byte(c.before), &object.Object); err != nil {
			t.Fatal(err)
		}
		EncodeData(object)
		if got, err := json.Marshal(object.Object); err != nil || string(got) != c.after {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.after)
		}
	}
}
