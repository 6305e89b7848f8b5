package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"idenfy-batch/internal/events"
)

// exporter serves metrics and health at one address. A nil one serves nothing.
type exporter struct {
	address  string // as configured
	listener net.Listener
	server   *http.Server
}

// listen opens the address; an empty one is no exporter. Nobody is answered
// before serve.
func listen(address string) (*exporter, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w; choose another port, or leave it empty", err)
	}
	return &exporter{address: address, listener: l}, nil
}

// at reports whether e listens on the address already.
func (e *exporter) at(address string) bool {
	if e == nil || address == "" {
		return e == nil && address == ""
	}
	if address == e.address {
		return true
	}
	a, err := net.ResolveTCPAddr("tcp", address)
	return err == nil && a.String() == e.listener.Addr().String()
}

func (e *exporter) serve(metrics, health http.Handler, emit events.Sink) {
	if e == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.Handle("GET /healthz", health)
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			emit(events.Trouble{What: "metrics are not served any more", Err: err})
		}
	}()
}

// close ends it: at once for the address, and within a second for those who
// are being answered.
func (e *exporter) close() {
	if e == nil {
		return
	}
	if e.server == nil {
		_ = e.listener.Close() // nobody was ever answered
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if e.server.Shutdown(ctx) != nil {
		_ = e.server.Close() // what hangs on it may be cut
	}
}
