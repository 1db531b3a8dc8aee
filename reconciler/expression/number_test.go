package expression_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/reconciler/expression"
)

func TestNumbers(t *testing.T) {
	var body any
	if err := json.Unmarshal([]byte(`{"rate": 0.25, "n": 7, "text": "3.5", "secret": "hunter22", "flag": true, "list": [{"v": 1}, {"v": 2}], "none": null}`), &body); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"body.rate":                          "0.25",
		"body.n":                             "7",
		"3":                                  "3",
		"uint(3)":                            "3",
		"-1.5":                               "-1.5",
		"double(body.text) * 2.0":            "7",
		"body.list[1].v":                     "2",
		"body.flag ? 1 : 0":                  "1",
		"body.list.map(e, e.v)[0]":           "1",
		"0.0 / 0.0":                          "NaN",
		"body.rate / 0.0":                    "+Inf",
		"body.text":                          "gives no number",
		"body.flag":                          "gives no number",
		"body.none":                          "gives no number",
		"body.list":                          "gives no number",
		"body.list[7].v":                     "gives no number",
		"body.missing.v":                     "gives no number",
		"double(body.secret)":                "gives no number",
		"'3'":                                "is a string, not a number",
		"true":                               "is a bool, not a number",
		"body.":                              "Syntax error",
		"answer.rate":                        "undeclared reference to 'answer'",
		strings.Repeat("1 + ", 2000) + "1":   "at most 4096 are allowed",
		"[1,2,3].map(x, [1,2,3].map(y, x)) ": "not a number",
	} {
		got := ""
		number, err := expression.CompileNumber(source, "body")
		if err == nil {
			var value float64
			value, err = number.Value(map[string]any{"body": body})
			got = fmt.Sprint(value)
		}
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%.60s: %s, want %s", source, got, want)
		}
		if strings.Contains(got, "hunter22") {
			t.Errorf("%.60s: the error shows what the answer holds: %s", source, got)
		}
	}
}
