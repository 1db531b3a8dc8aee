package analysis_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// fill gives every field of a value something that is not its zero value, so that a new one cannot be forgotten.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(epoch))
		return
	case metav1.Time:
		v.Set(reflect.ValueOf(metav1.Time{Time: epoch}))
		return
	case *v1alpha1.RolloutHeader:
		v.Set(reflect.ValueOf(&v1alpha1.RolloutHeader{Name: "x", Value: "y"}))
		return
	case *v1alpha1.BundleRef:
		v.Set(reflect.ValueOf(ref("filled")))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(1.0 / 3)
	case reflect.String:
		v.SetString("text")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	default:
		t.Fatalf("a %s cannot be filled", v.Type())
	}
}

// inUTC names all times in a value alike.
func inUTC(v reflect.Value) {
	if at, is := v.Interface().(time.Time); is {
		v.Set(reflect.ValueOf(at.UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			inUTC(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			inUTC(v.Field(i))
		}
	}
}

func TestStatusHoldsTheWholeCourse(t *testing.T) {
	var s analysis.State
	fill(t, reflect.ValueOf(&s.Course).Elem())
	var status, read v1alpha1.RolloutStatus
	s.Into(&status)
	content, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &read); err != nil {
		t.Fatal(err)
	}
	got := analysis.FromStatus(read).Course
	inUTC(reflect.ValueOf(&got).Elem()) // the API's times are read as local ones
	if !reflect.DeepEqual(got, s.Course) {
		t.Errorf("read %+v, written %+v", got, s.Course)
	}
}
