package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Bounds of what is asked.
const (
	maxConnections = 16
	maxRequest     = 1 << 20 // bytes; some thousands of names
	maxTime        = 10 * time.Minute
)

// Decision is what a person decides about some folders.
type Decision struct {
	Names   []string       `json:"names"`
	Action  sidecar.Action `json:"action"`
	Force   bool           `json:"force"`
	Comment string         `json:"comment"`
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
}

// answer is that to a reload, and to what is refused.
type answer struct {
	Note string `json:"note,omitempty"`
	Err  string `json:"error,omitempty"`
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

	busy sync.WaitGroup // with what is being answered
}

type peerKey struct{}

// Serve answers until ctx ends; then those that are being answered get a
// little time, after which their contexts end. It closes l, and returns when
// nothing is being answered any more.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	defer s.busy.Wait()
	answering, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reload", s.reload)
	mux.HandleFunc("POST /decide", s.decide)
	mux.HandleFunc("POST /state", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.State()) })
	mux.HandleFunc("POST /submission", s.submission)
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(http.TimeoutHandler(mux, maxTime, `{"error":"it took too long"}`), maxRequest),
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

func asker(r *http.Request) (uid uint32, err error) {
	uid, ok := r.Context().Value(peerKey{}).(uint32)
	if !ok {
		err = errors.New("who asks is not known")
	}
	return uid, err
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
	if !read(w, r, &sub) {
		return
	}
	if err := s.Submission(r.Context(), sub); err != nil {
		reply(w, http.StatusConflict, answer{Err: err.Error()})
		return
	}
	reply(w, http.StatusOK, answer{})
}

// read reads a question, or answers that it can't be read.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err != nil {
		reply(w, http.StatusBadRequest, answer{Err: "the request can't be read: " + err.Error()})
	}
	return err == nil
}

func (s *Server) decide(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.busy.Done()
	var d Decision
	if !read(w, r, &d) {
		return
	}
	uid, err := asker(r)
	if err != nil {
		reply(w, http.StatusForbidden, answer{Err: err.Error()})
		return
	}
	d.By.UID, d.By.User, d.By.EUID, d.By.Sudo = uid, userName(uid), nil, ""
	reply(w, http.StatusOK, s.Decide(r.Context(), d))
}
