package apply

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// ErrHeld is returned for a Plan that a person has to approve first.
var ErrHeld = errors.New("plan is held")

// ObjectError is the API server's answer about one object.
type ObjectError struct {
	Ref manifests.Ref
	// Rejected says that the server refused the object itself (invalid, forbidden, unknown kind):
	// trying again without a change does not help. Otherwise the cause may pass.
	Rejected bool
	Cause    error
}

// Error names the object and gives the server's message.
func (e *ObjectError) Error() string { return e.Ref.String() + ": " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *ObjectError) Unwrap() error { return e.Cause }

// objectError says what the server's err means for ref.
func objectError(ref manifests.Ref, err error) *ObjectError {
	rejected := apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsMethodNotSupported(err) ||
		apierrors.IsRequestEntityTooLargeError(err) || meta.IsNoMatchError(err) ||
		apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
	switch {
	case meta.IsNoMatchError(err):
		err = fmt.Errorf("the cluster serves no such kind (install its CustomResourceDefinition first): %w", err)
	case ref.Group == "" && ref.Kind == "Secret":
		err = withoutValues(err)
	case apierrors.IsInvalid(err) && strings.Contains(err.Error(), "immutable"):
		err = fmt.Errorf("%w (annotate it %s: enabled to have it deleted and created again)", err, plan.AnnotationForce)
	}
	return &ObjectError{Ref: ref, Rejected: rejected, Cause: err}
}

// withoutValues repeats what the server said about a Secret without its words:
// they can quote the refused value.
func withoutValues(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err
	}
	reason := status.Status().Reason
	if reason != metav1.StatusReasonInvalid && reason != metav1.StatusReasonBadRequest && reason != metav1.StatusReasonUnknown &&
		reason != metav1.StatusReasonInternalError {
		return err
	}
	var fields []string
	if details := status.Status().Details; details != nil {
		for _, cause := range details.Causes {
			fields = append(fields, fmt.Sprintf("%s (%s)", cause.Field, cause.Type))
		}
	}
	what := "the server's message is not shown, it may quote the value"
	if len(fields) > 0 {
		what = strings.Join(fields, ", ") + "; " + what
	}
	return fmt.Errorf("%s: %s", reason, what)
}
