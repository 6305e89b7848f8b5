package idenfy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// The names that the documentation has for a submission's field for the token:
// the newest page calls it "token", the others "authToken".
const (
	authToken = "authToken"
	justToken = "token"
)

// The identifiers that decide something here (iDenfy, "Error messages"). The
// list may grow.
const (
	TokenNotValid = "TOKEN_NOT_VALID" // expired, already used or unknown
	InternalError = "INTERNAL_ERROR"  // comes with any status
)

// serviceFaults are the identifiers that say something of the account or the
// service, and nothing of the folder.
var serviceFaults = []string{
	"UNAUTHORIZED", "PARTNER_CONTRACT_ERROR", "PERMISSIONS_ERROR", "TOO_MANY_REQUESTS", "METHOD_NOT_ALLOWED",
}

// sure are those of them that say something of the account alone: any request
// would meet them.
var sure = []string{"UNAUTHORIZED", "TOO_MANY_REQUESTS", "METHOD_NOT_ALLOWED"}

// wantsField returns the name that the service has for the token's field, when
// it says that it misses that, and got the other one.
func wantsField(sent string, a answer) string {
	other := justToken
	if sent == justToken {
		other = authToken
	}
	missing := a.Identifier == "MISSING_VALUE" || missingForm.MatchString(a.Message)
	if a.Identifier == TokenNotValid || !missing || !regexp.MustCompile(`\b`+other+`\b`).MatchString(a.Message) {
		return ""
	}
	return other
}

var missingForm = regexp.MustCompile(`(?i)\b(missing|required|not provided)\b`)

// NoCredits reports whether an error says that the account has used up what it
// has paid for: any folder would meet that.
func (e *Error) NoCredits() bool {
	return e.Class == ServiceFault && strings.Contains(strings.ToLower(e.Message), "token limit")
}

// Doubtful reports whether an answer of the class ServiceFault may be met by
// one request only, though it says nothing of that: a contract without that
// country, or a firewall, which answers what it dislikes with whatever it was
// set to. asked tells that the answer asks to wait: a 429 that does is meant
// for all.
func Doubtful(status int, identifier string, asked bool) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return false
	case http.StatusTooManyRequests:
		return identifier == "" && !asked
	}
	return status >= 300 && !slices.Contains(sure, identifier)
}

// Image is one image of a request.
type Image struct {
	Step string // FRONT, BACK or FACE
	Size int64  // bytes that Data has
	Data io.Reader
}

// Request is one submission.
type Request struct {
	Token        string
	Country      string
	DocumentType string
	SkipAnalysis *bool // nil: not sent
	Images       []Image

	// Confirm is called with the SHA-256 (lower-case hex) of each image, in
	// their order, when all but the last byte of the body was read to be
	// sent. If it returns an error the last byte is never sent, so what left
	// is no valid JSON, and the error comes back from Process.
	Confirm func(sums []string) error
}

// Class says what an error means for the folder and for the service.
type Class int

// The classes of errors.
const (
	// Rejected: the API answered that this request is not acceptable.
	Rejected Class = iota + 1
	// ServiceFault: credentials, contract, quota, a wrong address, a proxy.
	// Nothing was processed, and any other folder would meet the same.
	ServiceFault
	// ServerError: an answer that says that the service failed (5xx). It may
	// have been processed.
	ServerError
	// NotSent: proven that not one byte of the request left. The service
	// can't be reached.
	NotSent
	// NoAnswer: something may have left, and no usable answer came. It may
	// have been processed.
	NoAnswer
	// Withheld: Confirm said no, or an image could not be read to its end,
	// so the request was left unfinished. Nothing can have been processed.
	Withheld
	// Unfinished: the exchange broke before the request's last byte was handed
	// on, so nothing can have been processed.
	Unfinished
	// Busy: no session was opened, since the person has one that is active. That
	// ends with it.
	Busy
)

func (c Class) String() string {
	return [...]string{"", "rejected", "service fault", "server error", "not sent", "no answer", "withheld", "unfinished", "busy"}[c]
}

// Error is every error of a call.
type Error struct {
	Class      Class
	Status     int           // HTTP status; 0 without an answer
	Identifier string        // the API's, as it came; may be empty or unknown
	Message    string        // the API's, shortened and made safe to show; or what went wrong
	RetryAfter time.Duration // as the service asked; 0 when it didn't
	WantsField string        // name of the token's field, where the service misses another one than it got
	Err        error         // the cause, where there is one
}

func (e *Error) Error() string {
	switch {
	case e.Status != 0 && e.Identifier != "":
		return fmt.Sprintf("%s: HTTP %d, %s: %s", e.Class, e.Status, e.Identifier, e.Message)
	case e.Status != 0:
		return fmt.Sprintf("%s: HTTP %d: %s", e.Class, e.Status, e.Message)
	default:
		return fmt.Sprintf("%s: %s", e.Class, e.Message)
	}
}

func (e *Error) Unwrap() error { return e.Err }

// Answer is what came back.
type Answer struct {
	Status int // HTTP status
}

// Process submits one document for processing. nil means that it was accepted:
// 200 with an empty body. Every other end is an *Error. The body is read from
// the images as it is sent; memory does not grow with their size.
func (c *Client) Process(ctx context.Context, r *Request) (Answer, error) {
	body, err := newBody(c.o.TokenField, r)
	if err != nil {
		return Answer{}, &Error{Class: Withheld, Message: err.Error(), Err: err}
	}
	x, err := c.do(ctx, processPath, body, body.length)
	x.body = bytes.ReplaceAll(x.body, []byte(r.Token), []byte("(the token)")) // an error may repeat it, and is recorded
	whole, stopped := body.stop()
	if stopped != nil {
		return Answer{}, &Error{Class: Withheld, Message: stopped.Error(), Err: stopped}
	}
	if err != nil {
		broke := broken(&x, err)
		if broke.Class == NoAnswer && !whole {
			broke.Class = Unfinished
		}
		return Answer{}, broke
	}
	err = classify(&x)
	if e, ok := errors.AsType[*Error](err); ok && x.status == http.StatusBadRequest {
		if e.WantsField = wantsField(c.o.TokenField, answer{Message: e.Message, Identifier: e.Identifier}); e.WantsField != "" {
			e.Class = ServiceFault
		}
	}
	if err == nil && !whole {
		err = &Error{Class: NoAnswer, Status: x.status, Message: "the service answered before the request was whole"}
	}
	return Answer{Status: x.status}, err
}

// broken makes the error of an exchange without an answer.
func broken(x *exchange, err error) *Error {
	class := NoAnswer
	if x.notSent {
		class = NotSent
	}
	return &Error{Class: class, Message: clean(redact(err), 300), Err: err}
}

// redact leaves out the URL that http.Client puts before its errors: it is in
// the result already.
func redact(err error) string {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return urlErr.Err.Error()
	}
	return err.Error()
}

func classify(x *exchange) error {
	a, isJSON, empty := x.parse()
	e := &Error{Status: x.status, Identifier: a.Identifier, Message: a.Message, RetryAfter: retryAfter(x.header)}
	says := a.Identifier != "" || a.Message != ""
	if !says {
		switch {
		case empty:
			e.Message = "an empty answer"
		case isJSON:
			e.Message = "an answer in JSON without an error in it"
		default:
			e.Message = "an answer that is not JSON, but " + x.kind() + "; is there a proxy in between?"
		}
	}
	switch {
	case x.bodyErr != nil:
		// What was cut off may have been the error.
		e.Class, e.Message, e.Err = NoAnswer, clean("the answer was cut off: "+redact(x.bodyErr), 300), x.bodyErr
	case x.status == http.StatusOK && empty:
		return nil
	case x.status == http.StatusOK && !says, x.status == http.StatusRequestTimeout:
		e.Class = NoAnswer
	case x.status >= 500 || a.Identifier == InternalError:
		e.Class = ServerError
	case slices.Contains(serviceFaults, a.Identifier):
		e.Class = ServiceFault
	case x.status == http.StatusRequestEntityTooLarge:
		e.Class = Rejected
	case x.status == http.StatusUnauthorized, x.status == http.StatusForbidden,
		x.status == http.StatusProxyAuthRequired, x.status == http.StatusTooManyRequests,
		x.status == http.StatusNotFound, x.status == http.StatusMethodNotAllowed:
		e.Class = ServiceFault
	case says && (x.status == http.StatusOK || x.status >= 400):
		e.Class = Rejected
	default:
		// 2xx that the API doesn't know, redirects, a proxy's page.
		e.Class = ServiceFault
		if x.status > 200 && x.status < 300 {
			e.Class = NoAnswer
		}
	}
	return e
}

// BodySize returns the size of the body that Process makes of r, in bytes.
func (c *Client) BodySize(r *Request) (int64, error) {
	b, err := newBody(c.o.TokenField, r)
	if err != nil {
		return 0, err
	}
	return b.length, nil
}

// body is the JSON of a request, made while it is read.
type body struct {
	mu     sync.Mutex
	over   bool
	parts  []part
	length int64
	buf    []byte  // what is made and not read yet
	few    [4]byte // the buffer below buf, of an image
	raw    []byte  // image bytes of one step
	sums   []string
	sum    hash.Hash
	last   func([]string) error
	err    error
}

// part is a piece of text, or an image.
type part struct {
	text  []byte
	image *Image
	left  int64
}

// rawChunk is how much of an image is encoded at a time: a multiple of 3, so
// that Base64 pads at the end only.
const rawChunk = 48 << 10

func newBody(tokenField string, r *Request) (*body, error) {
	head := map[string]any{"country": r.Country, "documentType": r.DocumentType, tokenField: r.Token}
	if r.SkipAnalysis != nil {
		head["skipAnalysis"] = *r.SkipAnalysis
	}
	text, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	text = append(bytes.TrimSuffix(text, []byte("}")), `,"images":{`...)
	b := &body{sum: sha256.New(), last: r.Confirm}
	for i := range r.Images {
		img := &r.Images[i]
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, "%q:\"", img.Step)
		b.parts = append(b.parts, part{text: text}, part{image: img, left: img.Size})
		b.length += int64(len(text)) + (img.Size+2)/3*4
		text = []byte{'"'}
	}
	b.parts = append(b.parts, part{text: append(text, '}')}, part{text: []byte{'}'}})
	b.length += int64(len(text)) + 2
	return b, nil
}

// stop ends reading: the transport may still be at it when the exchange is
// over. It returns whether all was read, and what made it end early.
func (b *body) stop() (whole bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return len(b.parts) == 0 && len(b.buf) == 0, b.err
}

// Read fills p as far as it can: what is written at a time costs a call each.
// The last byte comes alone.
func (b *body) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, errors.New("the exchange is over")
	}
	for n < len(p) {
		if len(b.buf) > 0 {
			copied := copy(p[n:], b.buf)
			n, b.buf = n+copied, b.buf[copied:]
			continue
		}
		if b.err != nil || len(b.parts) <= 1 && n > 0 {
			break
		}
		if len(b.parts) == 0 {
			return 0, io.EOF
		}
		var made int
		made, b.err = b.next(p[n:])
		n += made
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, b.err
}

// next makes the next piece, in p as far as there is room for it.
func (b *body) next(p []byte) (int, error) {
	part := &b.parts[0]
	if part.image == nil {
		if len(b.parts) == 1 && b.last != nil {
			if err := b.last(b.sums); err != nil {
				return 0, err
			}
		}
		b.buf, b.parts = part.text, b.parts[1:]
		return 0, nil
	}
	if part.left == 0 {
		b.sums = append(b.sums, hex.EncodeToString(b.sum.Sum(nil)))
		b.sum.Reset()
		b.parts = b.parts[1:]
		return 0, nil
	}
	if b.raw == nil {
		b.raw = make([]byte, rawChunk)
	}
	direct := min(part.left, rawChunk)
	if int64(len(p)) < (direct+2)/3*4 {
		direct = int64(len(p)) / 4 * 3
	}
	raw := b.raw[:cmp.Or(direct, min(part.left, 3))]
	if _, err := io.ReadFull(part.image.Data, raw); err != nil {
		return 0, fmt.Errorf("%s could not be read to its end: %w", part.image.Step, err)
	}
	b.sum.Write(raw)
	part.left -= int64(len(raw))
	size := base64.StdEncoding.EncodedLen(len(raw))
	if direct == 0 { // there is no room for four characters
		b.buf = b.few[:size]
		encode(b.buf, raw)
		return 0, nil
	}
	encode(p[:size], raw)
	return size, nil
}
