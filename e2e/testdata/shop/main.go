// Command shop is the service that the demo delivers. How it behaves is baked
// into its image, so that nothing outside of the image knows:
//
//	SHOP_VERSION        is shown, default that of version.go
//	SHOP_BEHAVIOUR      ready (default), crash or never-ready
//	SHOP_FAILS          percentage of answers that are errors, default 0
//	SHOP_FAILS_FOR      "Header: value": only for requests that have it, all of them where SHOP_FAILS is not set
//	SHOP_SLOW           how much later answers come, such as 200ms
//	SHOP_SLOWS          percentage of answers that come later, default 100
//	SHOP_CRASHES_AFTER  when it crashes, such as 3s
//	SHOP_LEAKS          memory that it takes and does not give back, MiB a second
//	SHOP_ADDRESS        default :8080
//
// GREETING comes from outside.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv("SHOP_BEHAVIOUR"), cmp.Or(os.Getenv("SHOP_VERSION"), version)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	// drain is how long endpoints still send requests after the pod was told to end.
	drain = 2 * time.Second
	// finish is how long requests under way may take after that.
	finish = 10 * time.Second
)

func run(ctx context.Context, behaviour, version string) error {
	switch behaviour {
	case "", "ready", "never-ready":
	case "crash":
		return errors.New("panic: shop: the price list has no currency")
	default:
		return fmt.Errorf("SHOP_BEHAVIOUR %q: want ready, crash or never-ready", behaviour)
	}
	trouble, err := troubleFrom(os.Getenv)
	if err != nil {
		return err
	}
	if _, err := currency(); err != nil {
		return err
	}
	address := os.Getenv("SHOP_ADDRESS")
	if address == "" {
		address = ":8080"
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	fmt.Printf("shop %s listens on %s\n", version, listener.Addr())
	ready := func() bool { return behaviour != "never-ready" && ctx.Err() == nil }
	server := &http.Server{Handler: trouble.besets(handler(version, ready)), ReadHeaderTimeout: 10 * time.Second}
	trouble.begin()
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		time.Sleep(drain)
		done, cancel := context.WithTimeout(context.Background(), finish)
		defer cancel()
		ended <- server.Shutdown(done)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	// Serve returns as soon as Shutdown begins; requests under way still want their answers.
	return <-ended
}

func handler(version string, ready func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s from shop %s\n", os.Getenv("GREETING"), version)
	})
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	return mux
}
