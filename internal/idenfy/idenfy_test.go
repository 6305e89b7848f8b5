package idenfy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
)

const token = "3FA5TFPA2ZE3LMPGGS1EGOJNJE"

// api starts a sandbox, and returns it with a client that waits little.
func api(t *testing.T) (*sandbox.Sandbox, *idenfy.Client) {
	t.Helper()
	s := sandbox.New(sandbox.Options{Key: "key", Secret: "secret"})
	url, stop, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s, client(t, idenfy.Options{BaseURL: url})
}

func client(t *testing.T, o idenfy.Options) *idenfy.Client {
	t.Helper()
	if o.Key == "" {
		o.Key, o.Secret = "key", "secret"
	}
	if o.Timeout == 0 {
		o.Timeout = 300 * time.Millisecond
	}
	o.UserAgent, o.Conns = "idenfy-batch/test", 4
	c := idenfy.New(o)
	t.Cleanup(c.Close)
	return c
}

// request makes one of the images given; as many as there are of FRONT, FACE
// and BACK.
func request(images ...[]byte) *idenfy.Request {
	r := &idenfy.Request{Token: token, Country: "LT", DocumentType: "PASSPORT"}
	for i, data := range images {
		r.Images = append(r.Images, idenfy.Image{Step: []string{"FRONT", "FACE", "BACK"}[i], Size: int64(len(data)), Data: bytes.NewReader(data)})
	}
	return r
}

var front, face = sample.Front(), sample.Face()

func passport() *idenfy.Request { return request(front, face) }

func class(err error) idenfy.Class {
	if e, ok := errors.AsType[*idenfy.Error](err); ok {
		return e.Class
	}
	return 0
}

// What arrives is what was read, for every remainder of a Base64 triple, and
// the length was announced exactly.
func TestBodyIsExact(t *testing.T) {
	var got []byte
	var announced int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		announced = r.ContentLength
		got, _ = io.ReadAll(r.Body)
		if user, pass, ok := r.BasicAuth(); !ok || user != "key" || pass != "secret" || r.Header.Get("User-Agent") != "idenfy-batch/test" {
			t.Errorf("header: %v", r.Header)
		}
	}))
	defer srv.Close()
	c := client(t, idenfy.Options{BaseURL: srv.URL})
	random := make([]byte, 200_000)
	_, _ = rand.Read(random)
	for _, n := range []int{0, 1, 2, 3, 24<<10 - 1, 24 << 10, 24<<10 + 1, 100_000, 200_000} {
		no := false
		r := request(random[:n], random[n/2:], random[:1])
		r.SkipAnalysis = &no
		var sums []string
		r.Confirm = func(s []string) error { sums = append(sums, s...); return nil }
		size, err := c.BodySize(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Process(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		var body struct {
			AuthToken, Country, DocumentType string
			SkipAnalysis                     *bool
			Images                           map[string][]byte
		}
		if err := json.Unmarshal(got, &body); err != nil {
			t.Fatal(err)
		}
		if body.AuthToken != token || body.Country != "LT" || body.DocumentType != "PASSPORT" || body.SkipAnalysis == nil || *body.SkipAnalysis {
			t.Errorf("%d: body %+v", n, body)
		}
		for i, want := range [][]byte{random[:n], random[n/2:], random[:1]} {
			step := r.Images[i].Step
			sum := sha256.Sum256(want)
			if !bytes.Equal(body.Images[step], want) || sums[i] != hex.EncodeToString(sum[:]) {
				t.Errorf("%d: image %s differs", n, step)
			}
		}
		if size != int64(len(got)) || announced != size {
			t.Errorf("%d: size %d, announced %d, sent %d", n, size, announced, len(got))
		}
	}
}

func TestAnswers(t *testing.T) {
	html := "<html><body>Bad Gateway</body></html>"
	for _, c := range []struct {
		name    string
		step    sandbox.Step
		class   idenfy.Class
		message string
	}{
		{"rejected", sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "Bad value for 'country'"}, idenfy.Rejected, "Bad value for 'country'"},
		{"unknown identifier", sandbox.Step{Status: 400, Identifier: "NEW_RULE", Message: "New"}, idenfy.Rejected, "New"},
		{"200 with an error", sandbox.Step{Status: 200, Identifier: "VALIDATION_ERROR", Message: "Document not detected"}, idenfy.Rejected, "Document not detected"},
		{"200 with a message only", sandbox.Step{Status: 200, Body: `{"message": "Face not detected"}`}, idenfy.Rejected, "Face not detected"},
		{"200 with other JSON", sandbox.Step{Status: 200, Body: `{"ok": true}`}, idenfy.NoAnswer, "JSON without an error"},
		{"200 with HTML", sandbox.Step{Status: 200, Body: html, ContentType: "text/html; charset=utf-8"}, idenfy.NoAnswer, "not JSON, but text/html"},
		{"201 empty", sandbox.Step{Status: 201}, idenfy.NoAnswer, "an empty answer"},
		{"200 with spaces", sandbox.Step{Status: 200, Body: " \n"}, 0, ""},
		{"200 with spaces without end", sandbox.Step{Status: 200, Body: strings.Repeat(" ", 1<<20)}, idenfy.NoAnswer, "not JSON"},
		{"413", sandbox.Step{Status: 413, Body: html}, idenfy.Rejected, "not JSON"},
		{"401", sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"}, idenfy.ServiceFault, "no"},
		{"401 bare", sandbox.Step{Status: 401}, idenfy.ServiceFault, "empty answer"},
		{"403", sandbox.Step{Status: 403, Identifier: "PERMISSIONS_ERROR", Message: "no"}, idenfy.ServiceFault, "no"},
		{"contract", sandbox.Step{Status: 400, Identifier: "PARTNER_CONTRACT_ERROR", Message: "no"}, idenfy.ServiceFault, "no"},
		{"429", sandbox.Step{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "slow", RetryAfter: "7"}, idenfy.ServiceFault, "slow"},
		{"404 of a wrong address", sandbox.Step{Status: 404, Body: html}, idenfy.ServiceFault, "proxy"},
		{"400 of a proxy", sandbox.Step{Status: 400, Body: html, ContentType: "text/html"}, idenfy.ServiceFault, "proxy"},
		{"a redirect", sandbox.Step{Status: 302, Body: html}, idenfy.ServiceFault, "not JSON"},
		{"500", sandbox.Step{Status: 500, Identifier: "INTERNAL_ERROR", Message: "oops"}, idenfy.ServerError, "oops"},
		{"internal error as 400", sandbox.Step{Status: 400, Identifier: "INTERNAL_ERROR", Message: "oops"}, idenfy.ServerError, "oops"},
		{"502 HTML", sandbox.Step{Status: 502, Body: html}, idenfy.ServerError, "not JSON"},
		{"503", sandbox.Step{Status: 503, RetryAfter: "7"}, idenfy.ServerError, "empty"},
		{"408", sandbox.Step{Status: 408, Body: html}, idenfy.NoAnswer, "not JSON"},
		{"types that are wrong", sandbox.Step{Status: 400, Body: `{"message": 7, "identifier": "BAD_VALUE"}`}, idenfy.Rejected, ""},
		{"a list", sandbox.Step{Status: 400, Body: `[1]`}, idenfy.ServiceFault, "not JSON"},
		{"a huge answer", sandbox.Step{Status: 400, Body: strings.Repeat("x", 1<<20)}, idenfy.ServiceFault, "not JSON"},
		{"escapes in the message", sandbox.Step{Status: 400, Identifier: "BAD\x1b[31m", Message: "a\x1b]0;x\x07b\nc"}, idenfy.Rejected, "a ]0;x b c"},
		{"garbage", sandbox.Step{Fault: sandbox.Garbage}, idenfy.NoAnswer, "malformed HTTP"},
		{"reset before the body", sandbox.Step{Fault: sandbox.ResetBeforeBody}, idenfy.NoAnswer, ""},
		{"reset in the body", sandbox.Step{Fault: sandbox.ResetInBody}, idenfy.NoAnswer, ""},
		{"answer lost", sandbox.Step{Fault: sandbox.LoseAnswer}, idenfy.NoAnswer, ""},
		{"half an answer", sandbox.Step{Fault: sandbox.HalfAnswer}, idenfy.NoAnswer, "cut off"},
		{"stall", sandbox.Step{Fault: sandbox.Stall}, idenfy.NoAnswer, "no progress for 300ms"},
		{"stall after processing", sandbox.Step{Fault: sandbox.StallAnswer}, idenfy.NoAnswer, "no progress for 300ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, cl := api(t)
			s.Script(token, c.step)
			_, err := cl.Process(t.Context(), passport())
			if class(err) != c.class || err != nil && !strings.Contains(err.Error(), c.message) {
				t.Fatalf("got %v, want %v with %q", err, c.class, c.message)
			}
			var e *idenfy.Error
			if c.step.RetryAfter != "" && (!errors.As(err, &e) || e.RetryAfter != 7*time.Second) {
				t.Errorf("Retry-After: %+v", e)
			}
			if err != nil && strings.Contains(err.Error(), token) {
				t.Errorf("the token stands in %v", err)
			}
		})
	}
}

// Faults for all come while the request is on its way.
func TestFaultsInTheBody(t *testing.T) {
	big := sample.Pad(front, 6_000_000, 1)
	for _, fault := range []sandbox.Fault{sandbox.ResetBeforeBody, sandbox.ResetInBody, sandbox.StallInBody} {
		s, c := api(t)
		s.Always(&sandbox.Step{Fault: fault})
		if _, err := c.Process(t.Context(), request(big, big)); class(err) != idenfy.Unfinished {
			t.Errorf("%s: %v", fault, err)
		}
		if r := s.Report(); r.Requests != 1 || r.Processed != 0 {
			t.Errorf("%s: %+v", fault, r)
		}
	}
}

// Not sent means that not one byte of the request left: each kind of failure
// is held against what a server saw.
func TestNotSent(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	tlsServer := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
	tlsServer.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsServer.StartTLS()
	defer tlsServer.Close()
	for name, url := range map[string]string{
		"refused":                 refused,
		"no such host":            "https://idenfy.invalid",
		"an unknown certificate":  tlsServer.URL,
		"https to a plain server": strings.Replace(refused, "http:", "https:", 1),
	} {
		_, err := client(t, idenfy.Options{BaseURL: url}).Process(t.Context(), passport())
		if class(err) != idenfy.NotSent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A listener that takes the connection and says nothing: over TLS nothing of
// the request has left, over plain HTTP it has.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := client(t, idenfy.Options{BaseURL: "https://" + l.Addr().String()}).Process(t.Context(), passport()); class(err) != idenfy.NotSent {
		t.Errorf("TLS: %v", err)
	}
	if _, err := client(t, idenfy.Options{BaseURL: "http://" + l.Addr().String()}).Process(t.Context(), passport()); class(err) != idenfy.NoAnswer {
		t.Errorf("plain: %v", err)
	}
}

// Over TLS, with HTTP/1.1 and HTTP/2, connections are reused, and answers and
// losses are told apart.
func TestTLS(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			s := sandbox.New(sandbox.Options{})
			defer s.Close()
			var proto atomic.Value
			var conns atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				proto.Store(r.Proto)
				s.ServeHTTP(w, r)
			}))
			srv.Config.ConnState = func(_ net.Conn, st http.ConnState) {
				if st == http.StateNew {
					conns.Add(1)
				}
			}
			srv.EnableHTTP2 = http2
			srv.StartTLS()
			defer srv.Close()
			pool := x509.NewCertPool()
			pool.AddCert(srv.Certificate())
			c := client(t, idenfy.Options{BaseURL: srv.URL, RootCAs: pool, Timeout: 5 * time.Second})
			for n := range 5 {
				r := passport()
				r.Token = fmt.Sprintf("%s%02d", token, n)
				if _, err := c.Process(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]; proto.Load() != want {
				t.Errorf("spoke %v, want %s", proto.Load(), want)
			}
			if conns.Load() != 1 {
				t.Errorf("%d connections for 5 requests", conns.Load())
			}
			s.Script(token, sandbox.Step{Fault: sandbox.LoseAnswer})
			if _, err := c.Process(t.Context(), passport()); class(err) != idenfy.NoAnswer {
				t.Errorf("answer lost: %v", err)
			}
			_, err := c.Process(t.Context(), passport())
			var e *idenfy.Error
			if !errors.As(err, &e) || e.Identifier != idenfy.TokenNotValid {
				t.Errorf("the same again: %v", err)
			}
			if v := s.Report().Violations; len(v) > 0 {
				t.Error(v)
			}
		})
	}
}

// When the last look says no, the last byte never leaves, and the server can't
// have read a whole request.
func TestWithheld(t *testing.T) {
	s, c := api(t)
	r := passport()
	no := errors.New("the file changed")
	r.Confirm = func([]string) error { return no }
	if _, err := c.Process(t.Context(), r); class(err) != idenfy.Withheld || !errors.Is(err, no) {
		t.Errorf("Confirm said no: %v", err)
	}
	r = passport()
	r.Images[1].Size++ // the file shrank
	if _, err := c.Process(t.Context(), r); class(err) != idenfy.Withheld || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short file: %v", err)
	}
	if _, err := c.Process(t.Context(), passport()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	report := s.Report()
	if report.Processed != 1 || report.Repeats != 0 || len(report.Violations) > 0 {
		t.Errorf("%+v", report)
	}
}

// Slow is not stalled: the timeout is for lack of progress.
func TestSlowIsNotStalled(t *testing.T) {
	s, c := api(t)
	big := sample.Pad(front, 400_000, 1)
	r := request(big, face)
	r.Images[0].Data = &slow{r: bytes.NewReader(big)}
	begin := time.Now()
	if _, err := c.Process(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 400*time.Millisecond {
		t.Fatalf("%s is not longer than the timeout; the test shows nothing", took)
	}
	if s.Report().Processed != 1 {
		t.Error("not processed")
	}
}

// slow takes 40 ms for a read.
type slow struct{ r io.Reader }

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(40 * time.Millisecond)
	return s.r.Read(p)
}

// An answer that comes byte by byte, and never ends, is none: it gets no longer
// than one that doesn't come.
func TestDrip(t *testing.T) {
	s, c := api(t)
	s.Always(&sandbox.Step{Fault: sandbox.Drip})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := c.Process(ctx, passport())
	if class(err) != idenfy.NoAnswer || !errors.Is(err, idenfy.ErrNoProgress) || !strings.Contains(err.Error(), "did not end within 300ms") {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	s, c := api(t)
	s.Always(&sandbox.Step{Fault: sandbox.Stall})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for s.Token(token).Requests == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := c.Process(ctx, passport()); class(err) != idenfy.NoAnswer {
		t.Errorf("cancelled while it waited: %v", err)
	}
	if _, err := c.Process(ctx, passport()); class(err) != idenfy.NotSent {
		t.Errorf("cancelled before: %v", err)
	}
}

func TestStatus(t *testing.T) {
	s, c := api(t)
	s.Issue(token, "328c6766-934e-11ed-bb9b-025ad99a18e7")
	for status, want := range map[string]idenfy.Taken{
		"ACTIVE": idenfy.NotTaken, "REVIEWING": idenfy.WasTaken, "APPROVED": idenfy.WasTaken, "DENIED": idenfy.WasTaken,
		"SUSPECTED": idenfy.WasTaken, "EXPIRED": idenfy.TokenExpired, "DELETED": idenfy.TakenUnknown,
	} {
		s.SetStatus(token, status)
		if got, word, err := c.Status(t.Context(), "328c6766-934e-11ed-bb9b-025ad99a18e7"); got != want || word != status || err != nil {
			t.Errorf("%s: %v, %s, %v", status, got, word, err)
		}
	}
	if _, _, err := c.Status(t.Context(), "unknown"); class(err) != idenfy.Rejected {
		t.Errorf("unknown session: %v", err)
	}
	_, url, _ := strings.Cut(c.Endpoint(), "://")
	bad := client(t, idenfy.Options{BaseURL: "http://" + strings.TrimSuffix(url, "/api/v2/process"), Key: "x", Secret: "y"})
	if _, _, err := bad.Status(t.Context(), "unknown"); class(err) != idenfy.ServiceFault {
		t.Errorf("wrong credentials: %v", err)
	}
}

func TestCheckBaseURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://ivs.idenfy.com": true, "https://ivs.idenfy.com/": true, "http://127.0.0.1:8080": true, "http://localhost:1": true, "http://[::1]:80": true,
		"http://ivs.idenfy.com": false, "ftp://x": false, "ivs.idenfy.com": false, "": false, "https://user:pass@x": false,
		"https://x/api/v2": false, "https://x?y": false, "http://127.0.0.1.example.com": false,
	} {
		if err := idenfy.CheckBaseURL(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// What the service says is recorded, but not the token that it repeats.
func TestTokenInAnswer(t *testing.T) {
	r := request(front, front, face)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"message": "bad token TOKEN", "identifier": "BAD_VALUE"}`)
	}))
	defer srv.Close()
	r.Token = "TOKEN"
	c := idenfy.New(idenfy.Options{BaseURL: srv.URL, Timeout: time.Minute, Conns: 1})
	if _, err := c.Process(t.Context(), r); err == nil || strings.Contains(err.Error(), r.Token) || !strings.Contains(err.Error(), "bad token") {
		t.Error(err)
	}
}

func BenchmarkProcess(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer srv.Close()
	c := idenfy.New(idenfy.Options{BaseURL: srv.URL, Timeout: time.Minute, Conns: 1})
	data := sample.Pad(front, 4_000_000, 1)
	b.SetBytes(int64(3 * len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Process(context.Background(), request(data, data, data)); err != nil {
			b.Fatal(err)
		}
	}
}
