package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/report"
	"idenfy-batch/internal/spool"
)

// exporter serves metrics, health and the overview page at one address. A nil one serves nothing.
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

func (e *exporter) serve(d *daemon) {
	if e == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.metrics.Handler())
	mux.Handle("GET /healthz", d.state.Health())
	mux.Handle("GET /{$}", report.Handler((&overview{d: d}).get))
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			d.emit(events.Trouble{What: "metrics are not served any more", Err: err})
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

// recount is the time between two counts of the folders in the final places.
const recount = 15 * time.Second

// countFolders counts what lies in the final places, until ctx ends. What lies
// in hold is counted there, since people take it away; in done and failed may
// be very many, so that is what the journal filed there.
func (d *daemon) countFolders(ctx context.Context) {
	tick := time.NewTicker(recount)
	defer tick.Stop()
	for {
		n := map[spool.Place]int{}
		if names, err := d.spool.List(spool.Hold); err == nil { // else the batch says it
			n[spool.Hold] = len(names)
		}
		if filed, err := d.journal.Filings(ctx); err == nil {
			n[spool.Done], n[spool.Failed] = filed[string(spool.Done)], filed[string(spool.Failed)]
		}
		d.emit(events.Counted{Folders: n})
		if v, err := d.journal.Reader().Verdicts(ctx); err == nil {
			c := events.VerdictsCounted{Waiting: v.Waiting, Final: v.Final, Contradicted: v.Contradicted, Strays: v.Strays}
			if !v.Oldest.IsZero() {
				c.Oldest = max(time.Since(v.Oldest.Time), 0)
			}
			d.emit(c)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
