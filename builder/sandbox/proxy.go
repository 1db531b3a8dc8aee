package sandbox

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// proxy is the way out of a command's network: an HTTP proxy, with tunnels for everything that runs through TLS.
type proxy struct {
	dial    dialer
	forward *httputil.ReverseProxy
	server  *http.Server
	ctx     context.Context //nolint:containedctx // ends with the proxy and bounds the tunnels, which no request outlives
	cancel  context.CancelFunc

	mu      sync.Mutex // tunnels are begun under it, none when closed
	closed  bool
	tunnels sync.WaitGroup
}

func newProxy(dial dialer) *proxy {
	p := &proxy{dial: dial}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	quiet := log.New(io.Discard, "", 0) // what goes wrong is told to the command
	p.forward = &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		Transport:    &http.Transport{DialContext: dial, DisableCompression: true, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: dialTimeout},
		ErrorLog:     quiet,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { fail(w, err) },
	}
	p.server = &http.Server{
		Handler: http.HandlerFunc(p.handle), ErrorLog: quiet, ReadHeaderTimeout: dialTimeout, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return p.ctx },
	}
	return p
}

func (p *proxy) serve(l net.Listener) {
	_ = p.server.Serve(l) // until close
}

func (p *proxy) close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.server.Close()
	p.tunnels.Wait()
	if t, ok := p.forward.Transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusBadGateway
	if errors.Is(err, errRefused) {
		status = http.StatusForbidden
	}
	http.Error(w, "sandbox: "+err.Error(), status)
}

func (p *proxy) handle(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		p.tunnel(w, r)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		p.forward.ServeHTTP(w, r)
	default:
		http.Error(w, "sandbox: this is a proxy", http.StatusBadRequest)
	}
}

func (p *proxy) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.tunnels.Add(1)
	}
	return !p.closed
}

// tunnel connects the command with an address and hands bytes both ways.
func (p *proxy) tunnel(w http.ResponseWriter, r *http.Request) {
	if !p.begin() {
		return
	}
	defer p.tunnels.Done()
	outside, err := p.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		fail(w, err)
		return
	}
	defer outside.Close()
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		fail(w, errors.New("no tunnel on this connection"))
		return
	}
	inside, buffered, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer inside.Close()
	// Both ends close with the proxy.
	stop := context.AfterFunc(p.ctx, func() { _ = errors.Join(inside.Close(), outside.Close()) })
	defer stop()
	if _, err := io.WriteString(inside, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(outside, buffered)
		halfClose(outside)
	})
	_, _ = io.Copy(inside, outside)
	halfClose(inside)
	up.Wait()
}

// halfClose says that nothing more comes this way; the other way stays open.
func halfClose(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}
