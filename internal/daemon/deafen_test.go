package daemon

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"idenfy-batch/internal/events"
)

// A stop beside a reload, which has a receiver and is about to have it answer,
// waits for that, and ends it.
func TestStopBesideReload(t *testing.T) {
	d := &daemon{}
	d.mu.Lock()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{certain: certain{Listener: l, cert: &atomic.Pointer[tls.Certificate]{}}}
	d.now.Store(&current{receiver: r})
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.deafen()
	}()
	r.serve(&http.Server{Handler: http.NotFoundHandler()}, func(e events.Event) { t.Errorf("%+v", e) })
	d.mu.Unlock()
	<-done
	if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("the receiver still answers: %v", err)
	}
}
