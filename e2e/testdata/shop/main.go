// Command shop is the service that the demo delivers. How it behaves is baked
// into its image, so that nothing outside of the image knows:
//
//	SHOP_VERSION    is shown, default that of version.go
//	SHOP_BEHAVIOUR  ready (default), crash or never-ready
//	SHOP_FAILS      percentage of answers that are errors, default 0
//	SHOP_ADDRESS    default :8080
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
	"strconv"
	"sync/atomic"
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
	fails, err := strconv.Atoi(cmp.Or(os.Getenv("SHOP_FAILS"), "0"))
	if err != nil {
		return fmt.Errorf("SHOP_FAILS: %w", err)
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
	server := &http.Server{Handler: failing(int64(fails), handler(version, ready)), ReadHeaderTimeout: 10 * time.Second}
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

// failing makes a percentage of the answers to the first page errors, evenly.
func failing(percent int64, next http.Handler) http.Handler {
	var asked atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			if n := asked.Add(1); n*percent/100 != (n-1)*percent/100 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
		next.ServeHTTP(w, r)
	})
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
