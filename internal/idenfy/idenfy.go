// Package idenfy owns the conversation with iDenfy's API: one method a call,
// and errors that say whose fault it was and whether the request may have
// been processed. It never tries again and keeps nothing on disk.
//
// Rules are from iDenfy's public documentation, pages "Direct Processing",
// "Error messages" and "Data retrieval".
package idenfy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
)

// maxAnswer bounds what is read of an answer, in bytes; known ones have less
// than a thousand.
const maxAnswer = 64 << 10

// Options configures a Client.
type Options struct {
	BaseURL   string         // scheme and host, without a path
	Key       string         // API key, user name of HTTP Basic
	Secret    string         // API secret, its password
	Timeout   time.Duration  // without progress of a request, not in total; and for an answer, from its first byte
	RootCAs   *x509.CertPool // nil: the system's
	UserAgent string
	Conns     int // idle connections kept for reuse

	// TokenField is the name of a submission's field for the token; empty:
	// authToken. The newest page of the documentation calls it token.
	TokenField string

	// Dial makes a connection; nil: net.Dialer's DialContext.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client calls the API. It is safe for concurrent use.
type Client struct {
	o    Options
	http *http.Client
}

// New returns a client. Connections are reused, over HTTP/2 where the server
// speaks it; HTTPS_PROXY and NO_PROXY are honoured; redirects are not
// followed, since they would carry a person's data to another place.
func New(o Options) *Client {
	o.TokenField = cmp.Or(o.TokenField, authToken)
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: o.Timeout, KeepAlive: 30 * time.Second}).DialContext
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := o.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &countingConn{Conn: c}, nil
		},
		TLSClientConfig:     &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: o.Timeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: o.Conns,
		// Shorter than what servers and balancers commonly keep, so that a
		// request rarely meets a connection that is being closed.
		IdleConnTimeout:        20 * time.Second,
		MaxResponseHeaderBytes: maxAnswer,
		DisableCompression:     true,
		WriteBufferSize:        64 << 10,
	}
	return &Client{o: o, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Timeout returns how long an exchange may make no progress.
func (c *Client) Timeout() time.Duration { return c.o.Timeout }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Endpoint returns the URL that Process posts to.
func (c *Client) Endpoint() string { return c.o.BaseURL + processPath }

const (
	processPath = "/api/v2/process"
	statusPath  = "/api/v2/status"
	sessionPath = "/api/v2/token"
	deletePath  = "/api/v2/delete"
)

// countingConn counts what was handed to the kernel. It is what proves that
// not one byte of a request left.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	// Counted before the write: a failed one may have sent a part.
	c.written.Add(int64(len(p)))
	return c.Conn.Write(p)
}

// chunks are what ReadFrom writes at a time.
var chunks = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// ReadFrom writes a body in larger pieces than io.Copy would: it is what the
// transport calls with most of it, if there is no TLS above.
func (c *countingConn) ReadFrom(r io.Reader) (n int64, err error) {
	buf, _ := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	return io.CopyBuffer(justWriter{c}, r, *buf)
}

// justWriter hides ReadFrom.
type justWriter struct{ io.Writer }

// counter finds the counting connection below TLS.
func counter(c net.Conn) *countingConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	counting, _ := c.(*countingConn)
	return counting
}

// ErrNoProgress ends an exchange in which nothing moved for Options.Timeout, or
// whose answer took longer than that.
var ErrNoProgress = errors.New("no progress")

// exchange is one request and its answer.
type exchange struct {
	status  int
	header  http.Header
	body    []byte
	bodyErr error // the answer was cut off
	notSent bool  // proven
}

// do posts body, of length bytes, and reads the answer. On an error notSent
// tells whether it is proven that nothing of the request left.
func (c *Client) do(ctx context.Context, path string, body io.Reader, length int64) (exchange, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.o.Timeout, func() { cancel(ErrNoProgress) })
	defer watchdog.Stop()
	progress := func() { watchdog.Reset(c.o.Timeout) }

	// Until a connection is ready nothing of the request can have left;
	// after, only a count that didn't move proves it.
	var conn atomic.Pointer[countingConn]
	var before atomic.Int64
	var got atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if cc := counter(info.Conn); cc != nil {
				before.Store(cc.written.Load())
				conn.Store(cc)
			}
			got.Store(true)
			progress()
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.BaseURL+path, &progressReader{r: body, progress: progress})
	if err != nil {
		return exchange{notSent: true}, err
	}
	// GetBody stays unset: without it the transport never sends a POST again
	// by itself.
	req.ContentLength = length
	req.SetBasicAuth(c.o.Key, c.o.Secret)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.o.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		cc := conn.Load()
		notSent := !got.Load() || cc != nil && cc.written.Load() == before.Load()
		if cause := context.Cause(ctx); errors.Is(cause, ErrNoProgress) {
			err = fmt.Errorf("%w for %s", cause, c.o.Timeout)
		}
		return exchange{notSent: notSent}, err
	}
	defer resp.Body.Close()
	// An answer is small. One that comes byte by byte has no more time for it
	// than one that doesn't come.
	watchdog.Stop()
	late := time.AfterFunc(c.o.Timeout, func() { cancel(ErrNoProgress) })
	defer late.Stop()
	x := exchange{status: resp.StatusCode, header: resp.Header}
	x.body, x.bodyErr = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if x.bodyErr != nil && errors.Is(context.Cause(ctx), ErrNoProgress) {
		x.bodyErr = fmt.Errorf("%w: it did not end within %s", ErrNoProgress, c.o.Timeout)
	}
	return x, nil
}

type progressReader struct {
	r        io.Reader
	progress func()
}

func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.progress()
	}
	return n, err
}

// answer is the body of an error: iDenfy's "Error messages".
type answer struct {
	Message    string `json:"message"`
	Identifier string `json:"identifier"`
}

// parse returns the error in the body, whether the body is JSON at all, and
// whether it is empty.
func (x *exchange) parse() (a answer, isJSON, empty bool) {
	body := bytes.TrimSpace(x.body)
	if len(body) == 0 {
		return a, false, len(x.body) < maxAnswer // what follows may say no
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return a, false, false
	}
	// Field by field: one of an unexpected type doesn't hide the other.
	_ = json.Unmarshal(fields["message"], &a.Message)
	_ = json.Unmarshal(fields["identifier"], &a.Identifier)
	a.Message, a.Identifier = clean(a.Message, 300), clean(a.Identifier, 64)
	return a, true, false
}

// clean shortens text from the service and takes out what could do harm on a
// terminal.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strings.TrimSpace(s)
}

// retryAfter reads the header of RFC 9110, 10.2.3: seconds or a date. Nothing
// sensible is 0; more than a day is a day.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	d := time.Duration(0)
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = time.Until(t)
	}
	return min(max(d, 0), 24*time.Hour)
}

// kind names the media type of the answer, for messages.
func (x *exchange) kind() string {
	t, _, err := mime.ParseMediaType(x.header.Get("Content-Type"))
	if err != nil {
		return "something without a valid media type"
	}
	return clean(t, 60)
}

// CheckBaseURL returns what is wrong with u as a base URL, or nil. Plain HTTP
// would show the credentials and the images to the network, so it is for
// loopback only.
func CheckBaseURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		return errors.New("has to be a URL such as https://ivs.idenfy.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return errors.New("has to be a scheme and a host only, such as https://ivs.idenfy.com")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("has to begin with https://")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return errors.New("is plain http to another host, which would show credentials and images to the network; use https://")
}
