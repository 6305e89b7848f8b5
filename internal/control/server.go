package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/retention"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Bounds of what is asked.
const (
	maxConnections = 8       // of root and the daemon's user, and as many of others
	maxRequest     = 1 << 20 // bytes; some thousands of names
	maxTime        = 10 * time.Minute
)

// Decision is what a person decides about some folders.
type Decision struct {
	Names   []string       `json:"names"`
	Action  sidecar.Action `json:"action"`
	Force   bool           `json:"force"`
	Comment string         `json:"comment"`
	Inbox   string         `json:"inbox,omitempty"` // that they are to go to; empty: that they came from
	By      sidecar.Person `json:"by"`
}

// Decided is what came of it for one of them: where it lies, or why not.
type Decided struct {
	Name    string      `json:"name"`
	Place   spool.Place `json:"place,omitempty"`
	NewName string      `json:"new_name,omitempty"`
	Err     string      `json:"error,omitempty"`
}

// Submission is what somebody is about to send without the daemon, when its
// last attempt is sending, or what came of it.
type Submission struct {
	Result *sidecar.Result `json:"result"`
	Fate   string          `json:"fate"`  // what is known of what was sent
	Dir    string          `json:"dir"`   // names the directory, see drop.Identity
	Prior  []string        `json:"prior"` // ids in the results that came with the folder

	ClientID string `json:"client_id,omitempty"` // see journal.Life
	Content  string `json:"content,omitempty"`   // likewise
}

// answer is that to a reload, and to what is refused.
type answer struct {
	Note string `json:"note,omitempty"`
	Err  string `json:"error,omitempty"`
}

// Reader answers what people ask of the journal: a *journal.Reader, or a
// *Client.
type Reader interface {
	List(ctx context.Context, q journal.Query) ([]journal.Folder, error)
	Show(ctx context.Context, s journal.Search) (journal.Stories, error)
	Names(ctx context.Context, s journal.Search) ([]string, error)
	Entries(ctx context.Context, q journal.Entries) ([]journal.Row, error)
	Lives(ctx context.Context, q journal.Lives) ([]journal.Standing, error)
	Count(ctx context.Context, s journal.Span) ([]journal.Counted, error)
	Judged(ctx context.Context, s journal.Span) ([]journal.Judged, error)
	Extent(ctx context.Context, s journal.Span) (journal.Extent, error)
}

// Server answers what commands ask. Its fields are set before Serve.
type Server struct {
	// Reload returns when the new configuration is in force, or says why it
	// is not.
	Reload func(ctx context.Context) (note string, err error)
	// Decide makes a decision; By is who asks, by the kernel's word.
	Decide func(ctx context.Context, d Decision) []Decided
	// State is what the daemon says of itself, as it goes into JSON.
	State func() any
	// Submission enters what somebody submits without the daemon, or says why
	// it is not to be sent.
	Submission func(ctx context.Context, s Submission) error
	// Purge deletes what is due of folders that have ended, or what a person
	// listed, or says what would go; By is who asks, as with Decide.
	Purge func(ctx context.Context, a retention.Ask) (retention.Report, error)
	// Reader reads the journal, for everybody whom the socket lets in.
	Reader Reader

	busy    sync.WaitGroup // with what is being answered
	reading sync.Mutex     // one reads at a time, so that the daemon's own questions find room
}

type peerKey struct{}

// Serve answers until ctx ends; then those that are being answered get a
// little time, after which their contexts end. It closes l, and returns when
// nothing is being answered any more.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	defer s.busy.Wait()
	answering, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	mux, all := http.NewServeMux(), http.NewServeMux()
	all.Handle("/", http.TimeoutHandler(mux, maxTime, `{"error":"it took too long"}`))
	mux.Handle("POST /reload", allow(s.reload))
	mux.Handle("POST /decide", allow(s.decide))
	mux.Handle("POST /purge", allow(s.purge))
	mux.Handle("POST /submission", allow(s.submission))
	mux.HandleFunc("POST /state", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.State()) })
	if r := s.Reader; r != nil {
		all.Handle("POST /list", read(s, r.List))
		all.Handle("POST /show", read(s, r.Show))
		all.Handle("POST /names", read(s, r.Names))
		all.Handle("POST /entries", read(s, r.Entries))
		all.Handle("POST /lives", read(s, r.Lives))
		all.Handle("POST /count", read(s, r.Count))
		all.Handle("POST /judged", read(s, r.Judged))
		all.Handle("POST /extent", read(s, r.Extent))
	}
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(all, maxRequest),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second,
		WriteTimeout:   maxTime + 10*time.Second,
		MaxHeaderBytes: 16 << 10,
		BaseContext:    func(net.Listener) context.Context { return answering },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if p, ok := c.(*peer); ok {
				ctx = context.WithValue(ctx, peerKey{}, p.uid)
			}
			return ctx
		},
	}
	closed := make(chan struct{})
	end := context.AfterFunc(ctx, func() {
		defer close(closed)
		brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(brief) != nil {
			_ = srv.Close() // a decision that is cut off is made again
		}
	})
	err := srv.Serve(l)
	if !end() {
		<-closed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return errors.Join(err, srv.Close())
}

// allow lets root and the daemon's own user ask. The socket's group may read
// the journal, and not decide.
func allow(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if uid, ok := asker(r); !ok || !mayDecide(uid) {
			reply(w, http.StatusForbidden, answer{Err: "only root and the daemon's user may ask for that"})
			return
		}
		h(w, r)
	}
}

// mayDecide tells root and the daemon's user from others.
func mayDecide(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }

// read answers a question to the journal, and is done with it in readTime: with
// waiting for others, and with one who doesn't take the answer.
func read[Q, A any](s *Server, answerTo func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.busy.Add(1)
		defer s.busy.Done()
		ctx, cancel := context.WithTimeout(r.Context(), readTime)
		defer cancel()
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(readTime + 5*time.Second)) // else that of all answers
		var q Q
		if !question(w, r, &q) {
			return
		}
		s.reading.Lock()
		a, err := answerTo(ctx, q)
		s.reading.Unlock()
		if ctx.Err() != nil {
			err = fmt.Errorf("it took longer than %s", readTime)
		}
		if err != nil {
			reply(w, http.StatusInternalServerError, answer{Err: "the journal: " + err.Error()})
			return
		}
		reply(w, http.StatusOK, a)
	}
}

// question reads what is asked, or says that it can't be read.
func question(w http.ResponseWriter, r *http.Request, q any) bool {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(q); err != nil {
		reply(w, http.StatusBadRequest, answer{Err: "the request can't be read: " + err.Error()})
		return false
	}
	return true
}

func asker(r *http.Request) (uint32, bool) {
	uid, ok := r.Context().Value(peerKey{}).(uint32)
	return uid, ok
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the command is gone, which is its affair
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.busy.Done()
	note, err := s.Reload(r.Context())
	if err != nil {
		reply(w, http.StatusConflict, answer{Err: err.Error()})
		return
	}
	reply(w, http.StatusOK, answer{Note: note})
}

func (s *Server) submission(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.busy.Done()
	var sub Submission
	if !question(w, r, &sub) {
		return
	}
	if err := s.Submission(r.Context(), sub); err != nil {
		reply(w, http.StatusConflict, answer{Err: err.Error()})
		return
	}
	reply(w, http.StatusOK, answer{})
}

func (s *Server) decide(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.busy.Done()
	var d Decision
	if !question(w, r, &d) {
		return
	}
	asks(r, &d.By)
	reply(w, http.StatusOK, s.Decide(r.Context(), d))
}

// asks has the kernel say who asks.
func asks(r *http.Request, by *sidecar.Person) {
	uid, _ := asker(r)
	by.UID, by.User, by.EUID, by.Sudo = uid, userName(uid), nil, ""
}

// Purged is what came of a purge; Err says why it ended early.
type Purged struct {
	retention.Report
	Err string `json:"error,omitempty"`
}

func (s *Server) purge(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.busy.Done()
	var a retention.Ask
	if !question(w, r, &a) {
		return
	}
	if a.By == nil {
		a.By = &sidecar.Person{}
	}
	asks(r, a.By)
	report, err := s.Purge(r.Context(), a)
	made := Purged{Report: report}
	if err != nil {
		made.Err = err.Error()
	}
	reply(w, http.StatusOK, made)
}
