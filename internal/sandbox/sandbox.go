// Package sandbox owns a stand-in for iDenfy's API: faithful to the public
// documentation, scriptable in its faults, and keeping count, so that a test
// can tell that nothing was submitted twice.
//
// It takes real requests on a real socket. Where the documentation leaves a
// detail open, the choice is noted beside the code.
package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of the API, from the page "Direct Processing".
const (
	maxRequest = 20_000_000 // bytes; "20 MB", read as the smaller of its meanings
	maxImage   = 6_000_000  // bytes; on newer pages only, so off unless Options.ImageLimit
)

// Options configures a sandbox.
type Options struct {
	Key, Secret string // Basic credentials; both empty: any are taken
	Strict      bool   // only tokens that it issued itself are known
	ImageLimit  bool   // enforce the 6 MB per image of newer documentation
	TokenField  string // name of a submission's field for the token: authToken, or token; empty: authToken

	// ManySessions opens another session of a clientId while one is active. The
	// documentation says both that it does, and that the answer is 409.
	ManySessions bool
}

// Fault is what goes wrong with the connection.
type Fault string

// The faults.
const (
	ResetBeforeBody Fault = "reset_before_body" // connection reset when the head of the request is there
	ResetInBody     Fault = "reset_in_body"     // in the middle of the body
	LoseAnswer      Fault = "lose_answer"       // processed, then reset instead of an answer
	HalfAnswer      Fault = "half_answer"       // processed, then half of an answer
	Stall           Fault = "stall"             // the body is read, nothing is processed, no answer comes
	StallInBody     Fault = "stall_in_body"     // the body is not read any further
	StallAnswer     Fault = "stall_answer"      // processed, and no answer comes
	Garbage         Fault = "garbage"           // something that is no HTTP
	Drip            Fault = "drip"              // nothing is processed, and an answer comes byte by byte and never ends
)

// Step is how one request is treated. The zero Step is faithful treatment.
type Step struct {
	Latency time.Duration `json:"latency,omitempty"` // before the answer; nanoseconds in JSON
	Fault   Fault         `json:"fault,omitempty"`
	Then    string        `json:"then,omitempty"` // the session's status from now on, whatever else happens; empty: as it comes

	// An answer in place of a faithful one; nothing is processed.
	Status      int    `json:"status,omitempty"`       // HTTP status
	Identifier  string `json:"identifier,omitempty"`   // of the error body
	Message     string `json:"message,omitempty"`      // of the error body
	Body        string `json:"body,omitempty"`         // in place of the error body
	ContentType string `json:"content_type,omitempty"` // of Body
	RetryAfter  string `json:"retry_after,omitempty"`  // the header's value
}

// Seen is what the sandbox knows of one token.
type Seen struct {
	Requests  int               `json:"requests"`  // whole or not
	Processed int               `json:"processed"` // never more than one
	Sums      map[string]string `json:"sums"`      // SHA-256 of each image processed, by step
	Began     time.Time         `json:"began"`     // when the head of the first request was there
	Used      time.Time         `json:"used"`      // when it was processed
	ScanRef   string            `json:"scan_ref"`
	ClientID  string            `json:"client_id,omitempty"`    // of a session that was opened here
	Reference string            `json:"external_ref,omitempty"` // its externalRef

	inFlight int
	answered bool   // the answer of processing was written out
	forgiven int    // answers that may still be needed, see Forgive
	status   string // of the session
	expires  time.Time
}

// now returns the status of the session at this moment.
func (t *Seen) now() string {
	if t.status == "ACTIVE" && !t.expires.IsZero() && !time.Now().Before(t.expires) {
		return "EXPIRED"
	}
	return t.status
}

// Report is the count.
type Report struct {
	Requests   int            `json:"requests"`   // to the process call, whole or not
	Processed  int            `json:"processed"`  // accepted submissions
	Rejected   int            `json:"rejected"`   // faithful errors
	Repeats    int            `json:"repeats"`    // requests with a token that was processed before
	Status     int            `json:"status"`     // requests to the status call
	Asked      int            `json:"asked"`      // requests to the token call, whole or not
	Opened     int            `json:"opened"`     // sessions that it opened
	Deleted    int            `json:"deleted"`    // sessions that it deleted, on request
	InFlight   int            `json:"in_flight"`  // now
	MostAtOnce int            `json:"most"`       // highest number in flight
	Violations []string       `json:"violations"` // what a client must never do; tokens shortened
	ByAnswer   map[string]int `json:"by_answer"`  // HTTP status and identifier, or fault
}

// Sandbox is the API. Create it with New.
type Sandbox struct {
	o      Options
	mux    *http.ServeMux
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	report    Report
	tokens    map[string]*Seen
	persons   map[string]int    // by the SHA-256 of FACE, how often processed
	refs      map[string]string // scanRef to token
	scripts   map[string][]Step
	always    *Step
	decide    func(token string, n int) Step
	opening   opening // of sessions
	deletions []Step  // how the next ones are treated
	hooks     Webhooks
}

// New returns a sandbox without a listener.
func New(o Options) *Sandbox {
	s := &Sandbox{
		o: o, mux: http.NewServeMux(), closed: make(chan struct{}),
		tokens: map[string]*Seen{}, persons: map[string]int{}, refs: map[string]string{}, scripts: map[string][]Step{},
		opening: opening{asked: map[string]int{}, scripts: map[string][]Step{}},
		report:  Report{ByAnswer: map[string]int{}, Violations: []string{}},
	}
	s.mux.HandleFunc("/api/v2/process", s.process)
	s.mux.HandleFunc("/api/v2/status", s.status)
	s.mux.HandleFunc("/api/v2/token", s.session)
	s.mux.HandleFunc("/api/v2/delete", s.delete)
	s.mux.HandleFunc("GET /sandbox/report", s.getReport)
	s.mux.HandleFunc("POST /sandbox/script", s.postScript)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.fail(w, http.StatusNotFound, "BAD_VALUE", "No such path")
	})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close ends stalls, so that a server can shut down.
func (s *Sandbox) Close() { s.once.Do(func() { close(s.closed) }) }

// Serve serves on l until ctx ends.
func (s *Sandbox) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		s.Close()
		_ = srv.Close() // what it closed was ours to drop
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Script sets how the next requests with a token are treated, in order; after
// them treatment is faithful.
func (s *Sandbox) Script(token string, steps ...Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[token] = append(s.scripts[token], steps...)
}

// Always sets how requests are treated for which nothing is scripted; nil is
// faithful treatment.
func (s *Sandbox) Always(step *Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = step
}

// Decide sets a function that is asked for the treatment of the n-th request
// (from 1) with a token.
func (s *Sandbox) Decide(f func(token string, n int) Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decide = f
}

// Forgive allows further requests with the token though it was processed and
// answered, until one of them is answered as it should be: the client was
// killed before it could have read the answer.
func (s *Sandbox) Forgive(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen(token).forgiven++
}

// Issue makes the token and its scanRef known, as the token call does.
func (s *Sandbox) Issue(token, scanRef string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seen(token)
	t.ScanRef, t.status = scanRef, "ACTIVE"
	s.refs[scanRef] = token
}

// SetStatus overrides what the status call says of a token's session.
func (s *Sandbox) SetStatus(token, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen(token).status = status
}

// Report returns the count so far.
func (s *Sandbox) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.Violations = slices.Clone(r.Violations)
	r.ByAnswer = maps.Clone(r.ByAnswer)
	return r
}

// Token returns what was seen of a token.
func (s *Sandbox) Token(token string) Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[token]; t != nil {
		return *t
	}
	return Seen{}
}

// Persons returns how often each person was processed, with whatever token: by
// the SHA-256 of the FACE, in lower-case hex.
func (s *Sandbox) Persons() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.persons)
}

// seen returns the state of a token. The lock is held.
func (s *Sandbox) seen(token string) *Seen {
	t := s.tokens[token]
	if t == nil {
		t = &Seen{}
		s.tokens[token] = t
	}
	return t
}

func (s *Sandbox) violation(token, what string) {
	s.report.Violations = append(s.report.Violations, fmt.Sprintf("token %.4s…: %s", token, what))
}

// errorBody is the documented shape of an error.
type errorBody struct {
	Message       string `json:"message"`
	Identifier    string `json:"identifier"`
	Documentation string `json:"documentation"`
	Severity      string `json:"severity"`
}

func (s *Sandbox) fail(w http.ResponseWriter, status int, identifier, message string) {
	s.mu.Lock()
	s.report.Rejected++
	s.mu.Unlock()
	s.write(w, status, identifier, message)
}

func (s *Sandbox) write(w http.ResponseWriter, status int, identifier, message string) {
	s.count(strconv.Itoa(status) + " " + identifier)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(errorBody{Message: message, Identifier: identifier, Severity: "NOT_SEVERE"}) // the client is gone, which is its affair
}

func (s *Sandbox) count(answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.ByAnswer[answer]++
}

// authorized checks method, credentials and media type.
func (s *Sandbox) authorized(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		s.fail(w, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "Method "+r.Method+" is not allowed")
		return false
	}
	key, secret, ok := r.BasicAuth()
	if !ok || s.o.Key+s.o.Secret != "" && subtle.ConstantTimeCompare([]byte(key+"\x00"+secret), []byte(s.o.Key+"\x00"+s.o.Secret)) != 1 {
		s.fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "Invalid API key or secret")
		return false
	}
	if t := r.Header.Get("Content-Type"); !strings.HasPrefix(t, "application/json") {
		s.fail(w, http.StatusBadRequest, "JSON_ERROR", "Content-Type has to be application/json")
		return false
	}
	return true
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (s *Sandbox) process(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	s.mu.Lock()
	s.report.Requests++
	s.report.InFlight++
	s.report.MostAtOnce = max(s.report.MostAtOnce, s.report.InFlight)
	always := s.always
	s.mu.Unlock()
	var t *Seen // once the token is known
	over := sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.report.InFlight--
		if t != nil {
			t.inFlight--
		}
	})
	defer over()
	// The token is known only when the body was read, but a fault may be due
	// before that; only a fault for all can be.
	if always != nil && s.early(w, r, *always) {
		return
	}
	if !s.authorized(w, r) {
		return
	}
	buf, _ := buffers.Get().(*bytes.Buffer)
	buf.Reset()
	defer buffers.Put(buf)
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, maxRequest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		// The documentation names the limit, not the answer.
		s.fail(w, http.StatusRequestEntityTooLarge, "VALIDATION_ERROR", "Request is larger than 20 MB")
		return
	}
	if err != nil {
		s.count("unfinished request")
		return // the client left; nothing of it can be processed
	}
	var req request
	if err := json.Unmarshal(buf.Bytes(), &req); err != nil {
		s.fail(w, http.StatusBadRequest, "JSON_ERROR", "Request body is not valid JSON")
		return
	}
	if s.o.TokenField == "token" {
		req.Token = req.Newer
	}
	var step Step
	step, t = s.begin(req.Token, began)
	s.treat(w, r, step, &req, over)
}

type request struct {
	Token        string            `json:"authToken"`
	Newer        string            `json:"token"` // its name on the newest page of the documentation
	Country      *string           `json:"country"`
	DocumentType *string           `json:"documentType"`
	SkipAnalysis *bool             `json:"skipAnalysis"`
	Images       map[string]string `json:"images"`
}

// begin notes a whole request and returns how to treat it, and its token.
func (s *Sandbox) begin(token string, began time.Time) (Step, *Seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seen(token)
	t.Requests++
	if t.Began.IsZero() {
		t.Began = began
	}
	t.inFlight++
	if t.inFlight > 1 && t.forgiven == 0 { // what a killed client had sent may still be under way
		s.violation(token, "two requests at once")
	}
	if t.Processed > 0 {
		s.report.Repeats++
		if t.answered && t.forgiven == 0 {
			s.violation(token, "sent again after it was processed and answered")
		}
	}
	switch script := s.scripts[token]; {
	case len(script) > 0:
		s.scripts[token] = script[1:]
		return script[0], t
	case s.decide != nil:
		return s.decide(token, t.Requests), t
	case s.always != nil:
		return *s.always, t
	default:
		return Step{}, t
	}
}

// early handles faults that come before the body was read.
func (s *Sandbox) early(w http.ResponseWriter, r *http.Request, step Step) bool {
	switch step.Fault {
	case ResetBeforeBody:
	case ResetInBody:
		_, _ = io.CopyN(io.Discard, r.Body, max(r.ContentLength/2, 1)) // as much as comes
	case StallInBody:
		_, _ = io.CopyN(io.Discard, r.Body, min(r.ContentLength/2, 1000)) // as much as comes
		s.count(string(step.Fault))
		s.stall(w, r)
		return true
	default:
		return false
	}
	s.count(string(step.Fault))
	reset(w)
	return true
}

// processes reports whether the request is looked at at all.
func (s Step) processes() bool {
	return s.Status == 0 && slices.Contains([]Fault{"", LoseAnswer, HalfAnswer, StallAnswer}, s.Fault)
}

// treat answers a whole request, or fails to. It calls over before the client
// can see anything: that may be quick with its next request.
func (s *Sandbox) treat(w http.ResponseWriter, r *http.Request, step Step, req *request, over func()) {
	select {
	case <-time.After(step.Latency):
	case <-s.closed:
	}
	var e *errorBody
	if step.processes() {
		var sums map[string]string
		if sums, e = s.validate(req); e == nil {
			e = s.use(req.Token, sums)
		}
	}
	if step.Then != "" {
		s.SetStatus(req.Token, step.Then)
	}
	if step.Fault != "" { // whoever sees it counted may rely on what was processed
		s.count(string(step.Fault))
	}
	over()
	if s.instead(w, r, step) {
		return
	}
	if e != nil {
		s.mu.Lock()
		t := s.seen(req.Token)
		t.forgiven = max(t.forgiven-1, 0)
		s.mu.Unlock()
		s.fail(w, http.StatusBadRequest, e.Identifier, e.Message)
		return
	}
	if s.afterwards(w, r, step) {
		return
	}
	s.count("200")
	// Noted before it is written: a client that has read it may be quick.
	s.mu.Lock()
	s.seen(req.Token).answered = true
	s.mu.Unlock()
	w.WriteHeader(http.StatusOK) // with an empty body: success
}

// instead does what a step wants in place of treating a request.
func (s *Sandbox) instead(w http.ResponseWriter, r *http.Request, step Step) bool {
	switch step.Fault {
	case ResetBeforeBody, ResetInBody:
		// Scripted for one token, or person, who was known only behind the
		// body: what the client sees is the same but for the moment.
		reset(w)
		return true
	case Stall, StallInBody:
		s.stall(w, r)
		return true
	case Garbage:
		raw(w, "\x16\x03\x01\x02\x00 this is not HTTP\r\n\r\n")
		return true
	case Drip:
		s.drip(w, r)
		return true
	}
	if step.Status == 0 {
		return false
	}
	if step.RetryAfter != "" {
		w.Header().Set("Retry-After", step.RetryAfter)
	}
	if step.Body == "" && step.Identifier != "" {
		s.write(w, step.Status, step.Identifier, step.Message)
		return true
	}
	s.count(strconv.Itoa(step.Status) + " scripted body")
	if step.ContentType != "" {
		w.Header().Set("Content-Type", step.ContentType)
	}
	w.WriteHeader(step.Status)
	_, _ = io.WriteString(w, step.Body) // the client is gone, which is its affair
	return true
}

// afterwards does what a step wants in place of the answer to a request that
// was treated.
func (s *Sandbox) afterwards(w http.ResponseWriter, r *http.Request, step Step) bool {
	switch step.Fault {
	case LoseAnswer:
		reset(w)
	case StallAnswer:
		s.stall(w, r)
	case HalfAnswer:
		raw(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{\"mess")
	default:
		return false
	}
	return true
}

var required = map[string][]string{
	"ID_CARD":          {"FRONT", "BACK", "FACE"},
	"PASSPORT":         {"FRONT", "FACE"},
	"DRIVER_LICENSE":   {"FRONT", "BACK", "FACE"},
	"RESIDENCE_PERMIT": {"FRONT", "BACK", "FACE"},
}

// validate checks a request as the documentation demands, and returns the
// images' hashes.
func (s *Sandbox) validate(req *request) (map[string]string, *errorBody) {
	bad := func(identifier, format string, args ...any) (map[string]string, *errorBody) {
		return nil, &errorBody{Identifier: identifier, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case req.Token == "":
		return bad("MISSING_VALUE", "Missing value for '%s'", cmp.Or(s.o.TokenField, "authToken"))
	case len(req.Token) < 10 || len(req.Token) > 40 || strings.ContainsFunc(req.Token, func(r rune) bool { return r > 126 || r < 33 }):
		return bad("VALIDATION_ERROR", "'authToken' has to be 10 to 40 ASCII characters")
	case req.Country == nil:
		return bad("MISSING_VALUE", "Missing value for 'country'")
	case len(*req.Country) != 2 || strings.ToUpper(*req.Country) < "AD" || strings.ToUpper(*req.Country) > "ZW":
		return bad("BAD_VALUE", "Bad value for 'country'")
	case req.DocumentType == nil:
		return bad("MISSING_VALUE", "Missing value for 'documentType'")
	case required[*req.DocumentType] == nil:
		return bad("BAD_VALUE", "Bad value for 'documentType'")
	}
	for _, step := range required[*req.DocumentType] {
		if req.Images[step] == "" {
			return bad("MISSING_VALUE", "No image provided for step '%s'", step)
		}
	}
	sums := map[string]string{}
	for step, text := range req.Images {
		if !slices.Contains([]string{"FRONT", "BACK", "FACE"}, step) {
			return bad("BAD_VALUE", "Unknown step '%s'", step)
		}
		h := sha256.New()
		var head [8]byte
		n, err := hashBase64(h, head[:], text)
		if err != nil {
			return bad("ENCODING_ERROR", "Image of step '%s' is not valid Base64", step)
		}
		if s.o.ImageLimit && n > maxImage {
			return bad("VALIDATION_ERROR", "Image of step '%s' is larger than 6 MB", step)
		}
		if !bytes.HasPrefix(head[:], []byte("\xff\xd8\xff")) && string(head[:]) != "\x89PNG\r\n\x1a\n" && !bytes.HasPrefix(head[:], []byte("%PDF-")) {
			return bad("BAD_VALUE", "Image of step '%s' has an unsupported format", step)
		}
		sums[step] = hex.EncodeToString(h.Sum(nil))
	}
	return sums, nil
}

func hashBase64(h io.Writer, head []byte, text string) (int64, error) {
	dec := base64.NewDecoder(base64.StdEncoding, strings.NewReader(text))
	n, err := io.ReadFull(dec, head)
	if err != nil {
		return 0, err
	}
	if _, err := h.Write(head[:n]); err != nil {
		return 0, err
	}
	m, err := io.Copy(h, dec)
	return int64(n) + m, err
}

// use deactivates the token, which it can do once.
func (s *Sandbox) use(token string, sums map[string]string) *errorBody {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seen(token)
	if t.Processed > 0 || s.o.Strict && t.status == "" || t.status != "" && t.now() != "ACTIVE" {
		return &errorBody{Identifier: "TOKEN_NOT_VALID", Message: "Token is not valid"}
	}
	t.Processed++
	t.Used = time.Now()
	t.status = "REVIEWING"
	t.Sums = sums
	s.persons[sums["FACE"]]++
	s.report.Processed++
	s.announce(token, t.ScanRef)
	return nil
}

// scanRef reads which session a request is about; it has answered when ok is false.
func (s *Sandbox) scanRef(w http.ResponseWriter, r *http.Request) (ref string, ok bool) {
	if !s.authorized(w, r) {
		return "", false
	}
	var req struct {
		ScanRef string `json:"scanRef"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&req); err != nil {
		s.fail(w, http.StatusBadRequest, "JSON_ERROR", "Request body is not valid JSON")
		return "", false
	}
	return req.ScanRef, true
}

func (s *Sandbox) status(w http.ResponseWriter, r *http.Request) {
	scanRef, ok := s.scanRef(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	s.report.Status++
	token, known := s.refs[scanRef]
	status := ""
	if known {
		status = s.seen(token).now()
	}
	s.mu.Unlock()
	if !known {
		s.fail(w, http.StatusNotFound, "BAD_VALUE", "Bad value for 'scanRef'")
		return
	}
	s.count("status " + status)
	answer(w, http.StatusOK, map[string]any{
		"status": status, "scanRef": scanRef, "autoDocument": nil, "autoFace": nil,
		"manualDocument": nil, "manualFace": nil, "fraudTags": []string{}, "mismatchTags": []string{},
	})
}

// NewScanRef returns a fresh reference in the form of a UUID.
func NewScanRef() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone, which is its affair
}

func (s *Sandbox) getReport(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.Report())
}

// postScript takes {"token": "...", "steps": [...]}; without a token the
// first step is for all requests, and without steps treatment is faithful. With
// {"session": true, "client_id": "..."} the same is of sessions that are asked
// for.
func (s *Sandbox) postScript(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Token    string `json:"token"`
		Session  bool   `json:"session"`
		ClientID string `json:"client_id"`
		Steps    []Step `json:"steps"`
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch {
	case req.Session && req.ClientID != "":
		s.ScriptSessions(req.ClientID, req.Steps...)
	case req.Session && len(req.Steps) > 0:
		s.AlwaysSession(&req.Steps[0])
	case req.Session:
		s.AlwaysSession(nil)
	case req.Token != "":
		s.Script(req.Token, req.Steps...)
	case len(req.Steps) > 0:
		s.Always(&req.Steps[0])
	default:
		s.Always(nil)
	}
	w.WriteHeader(http.StatusNoContent)
}

// stall keeps the connection until the client leaves or the sandbox closes.
func (s *Sandbox) stall(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.closed:
	case <-time.After(10 * time.Minute):
	}
	reset(w)
}

// drip answers a byte at a time until the client leaves or the sandbox closes.
func (s *Sandbox) drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for out := http.NewResponseController(w); ; {
		_, err := io.WriteString(w, " ")
		if errors.Join(err, out.Flush()) != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		}
	}
}

// reset ends the connection with a TCP reset (over HTTP/2, the stream).
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it, it is a close; a fault all the same
	}
	_ = conn.Close() // that it fails is the purpose
}

// raw writes text in place of an answer, and closes.
func raw(w http.ResponseWriter, text string) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = buf.WriteString(text) // that it fails is as good a fault
	_ = buf.Flush()
	_ = conn.Close()
}

// Start serves on a free port of loopback, and returns the base URL and what
// ends it.
func (s *Sandbox) Start() (baseURL string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ctx, l) // ends with the listener, which is closed here only
	}()
	return "http://" + l.Addr().String(), func() { cancel(); <-done }, nil
}
