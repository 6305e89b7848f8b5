// Package verdict owns how iDenfy's verdict comes to a folder: webhooks, which
// are recorded before they are answered, single status requests where none
// came, and the join of both to the folder that they are about.
package verdict

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
)

// Bounds of the receiver. Whoever reaches the port may send anything, so that
// all that has no good signature yet has little room and little time.
const (
	maxBody     = 1 << 20 // bytes; iDenfy's have some ten thousand
	usualBody   = 64 << 10
	largeAtOnce = 16   // bodies above usualBody that are read at once
	connsAtOnce = 2048 // and never more than a quarter of what the process may open
	writeAtOnce = 256  // events that wait for their commit
	headTime    = 5 * time.Second
	readTime    = 8 * time.Second // iDenfy itself waits for ten, for all of it
	idleTime    = 15 * time.Second

	// answerTime is for how long a commit is waited for.
	answerTime = 900 * time.Millisecond
)

// Settings say which webhooks are taken. They may change at any time.
type Settings struct {
	Path string
	Keys []string // any of them may have signed
	Full bool     // the body is kept
}

// Receiver takes webhooks. Create it with NewReceiver.
type Receiver struct {
	journal *journal.Journal
	emit    events.Sink
	came    func()
	set     atomic.Pointer[Settings]
	large   chan struct{}
	writing chan struct{}
}

// NewReceiver returns a receiver that records in the journal, and calls came
// when there is something new.
func NewReceiver(j *journal.Journal, emit events.Sink, came func()) *Receiver {
	return &Receiver{journal: j, emit: emit, came: came, large: make(chan struct{}, largeAtOnce), writing: make(chan struct{}, writeAtOnce)}
}

// Set changes the settings.
func (r *Receiver) Set(s Settings) { r.set.Store(&s) }

// Server returns the server for webhooks.
func (r *Receiver) Server() *http.Server {
	return &http.Server{
		Handler:           r,
		ReadHeaderTimeout: headTime, ReadTimeout: readTime, WriteTimeout: readTime + 2*time.Second, IdleTimeout: idleTime,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       log.New(io.Discard, "", 0), // of whoever comes to the port
	}
}

// ServeHTTP answers one webhook: 200 when it is in the journal, and not before.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	set := r.set.Load()
	if set == nil || req.URL.Path != set.Path {
		r.refuse(w, req, events.NotWebhook, http.StatusNotFound)
		return
	}
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		r.refuse(w, req, events.NotWebhook, http.StatusMethodNotAllowed)
		return
	}
	signature, err := hex.DecodeString(req.Header.Get("Idenfy-Signature"))
	if err != nil || len(signature) != sha256.Size {
		r.refuse(w, req, events.BadSignature, http.StatusUnauthorized)
		return
	}
	if req.ContentLength > maxBody {
		r.refuse(w, req, events.TooLarge, http.StatusRequestEntityTooLarge)
		return
	}
	body, status := r.read(w, req)
	if status != 0 {
		why := map[int]events.Refusal{http.StatusRequestEntityTooLarge: events.TooLarge, http.StatusServiceUnavailable: events.Busy, http.StatusBadRequest: events.Unfinished}[status]
		r.refuse(w, req, why, status)
		return
	}
	if !signed(body, signature, set.Keys) {
		r.refuse(w, req, events.BadSignature, http.StatusUnauthorized)
		return
	}
	e := parse(body, req.Header.Get("Idenfy-Event-Type"), set.Full, time.Now())
	if err := r.record(req.Context(), e); err != nil {
		r.emit(events.WebhookRefused{Why: events.NotRecorded, Err: err})
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// refuse answers what is not taken, and wants no more of it: not before as much
// of the body was read as is usual. To a proxy that still sends it, an answer is
// an abort: Caddy hands that on.
func (r *Receiver) refuse(w http.ResponseWriter, req *http.Request, why events.Refusal, status int) {
	r.emit(events.WebhookRefused{Why: why})
	_, _ = io.CopyN(io.Discard, req.Body, usualBody) // it is refused either way
	w.Header().Set("Connection", "close")
	w.WriteHeader(status)
}

// read reads the body. A large one needs one of a few places: else a flood of
// them would take all memory. A status is why it was not read.
func (r *Receiver) read(w http.ResponseWriter, req *http.Request) (body []byte, status int) {
	in := http.MaxBytesReader(w, req.Body, maxBody)
	body, err := io.ReadAll(io.LimitReader(in, usualBody+1))
	if err == nil && len(body) > usualBody {
		select {
		case r.large <- struct{}{}:
			defer func() { <-r.large }()
		default:
			return nil, http.StatusServiceUnavailable
		}
		var rest []byte
		rest, err = io.ReadAll(in)
		body = append(body, rest...)
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, http.StatusRequestEntityTooLarge
	}
	if err != nil {
		return nil, http.StatusBadRequest
	}
	return body, 0
}

// signed reports whether one of the keys made the signature. It takes as long
// whichever it is.
func signed(body, signature []byte, keys []string) bool {
	good := false
	for _, key := range keys {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(body)
		good = hmac.Equal(mac.Sum(nil), signature) || good
	}
	return good
}

var errSlow = errors.New("the journal did not take it within a second")

// record brings an event into the journal. When that takes too long, or can't be
// told, iDenfy is to send it again: that is the same event then.
func (r *Receiver) record(ctx context.Context, e journal.Event) error {
	late := time.NewTimer(answerTime)
	defer late.Stop()
	select {
	case r.writing <- struct{}{}:
	case <-late.C:
		return errSlow
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-r.writing }()
		heard, err := r.journal.Hear(e)
		if err == nil {
			r.emit(events.WebhookTaken{Known: heard.Known, Readable: e.ScanRef != ""})
			if len(heard.Disputed) > 0 {
				d := events.Disputed{ScanRef: e.ScanRef}
				for i := range heard.Disputed {
					d.Folders = append(d.Folders, heard.Disputed[i].Where())
				}
				r.emit(d)
			}
			r.came()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return errSlow
	}
}

// limited is a listener that has a bounded number of connections open.
type limited struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Limit bounds the connections of a listener.
func Limit(l net.Listener) net.Listener {
	n := connsAtOnce
	var most unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &most) == nil && most.Cur/4 < uint64(n) {
		n = max(int(most.Cur/4), 1)
	}
	return &limited{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: c, free: sync.OnceFunc(func() { <-l.places })}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
