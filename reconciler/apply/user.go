package apply

import (
	"context"
	"net/http"

	"k8s.io/client-go/transport"
)

// userKey is the key of a context's user.
type userKey struct{}

// As makes every request of an Applier under ctx one of user: what it may not do is refused by the API server. All users share
// one transport. Watches run as the agent, since all Applications share them: they tell what is labelled, not what is in it.
func As(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

// impersonating sends the user of the context along.
type impersonating struct{ next http.RoundTripper }

func (i impersonating) RoundTrip(r *http.Request) (*http.Response, error) {
	if user, _ := r.Context().Value(userKey{}).(string); user != "" {
		r = r.Clone(r.Context())
		r.Header.Set(transport.ImpersonateUserHeader, user)
	}
	return i.next.RoundTrip(r)
}
