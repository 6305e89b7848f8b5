package sandbox

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// The token call, by the page "Generate token" and its OpenAPI.

const (
	defaultExpiry = time.Hour // of 2020; none is published now
	maxExpiry     = 2_592_000 // seconds
	maxReference  = 40        // characters of externalRef
)

// opening is what there is to say of sessions that are asked for.
type opening struct {
	asked   map[string]int // by clientId
	scripts map[string][]Step
	always  *Step
	decide  func(clientID string, n int) Step
	credits *int     // left; nil: without end
	clients sync.Map // clientId by token
}

// ScriptSessions is Script of the sessions that are asked for a clientId.
func (s *Sandbox) ScriptSessions(clientID string, steps ...Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening.scripts[clientID] = append(s.opening.scripts[clientID], steps...)
}

// AlwaysSession is Always of the sessions that are asked for.
func (s *Sandbox) AlwaysSession(step *Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening.always = step
}

// DecideSession is Decide of the sessions that are asked for.
func (s *Sandbox) DecideSession(f func(clientID string, n int) Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening.decide = f
}

// SetCredits says how many more sessions the account has paid for.
func (s *Sandbox) SetCredits(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening.credits = &n
}

// Sessions returns what was seen of the sessions that were opened for a
// clientId, or of all, by their tokens.
func (s *Sandbox) Sessions(clientID string) map[string]Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]Seen{}
	for token, t := range s.tokens {
		if t.ClientID != "" && (clientID == "" || t.ClientID == clientID) {
			found[token] = *t
		}
	}
	return found
}

// ClientOf returns whose session a token is of, also while the sandbox asks how
// to treat a request; "" when it opened none with that.
func (s *Sandbox) ClientOf(token string) string {
	if c, ok := s.opening.clients.Load(token); ok {
		return c.(string) //nolint:forcetypeassert // nothing else is stored
	}
	return ""
}

// Expire lets the sessions of a clientId expire that are not used.
func (s *Sandbox) Expire(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if t.ClientID == clientID && t.status == "ACTIVE" {
			t.status = "EXPIRED"
		}
	}
}

// session opens one, as POST /api/v2/token.
func (s *Sandbox) session(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.report.Asked++
	s.mu.Unlock()
	if !s.authorized(w, r) {
		return
	}
	var req map[string]any
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&req); err != nil || req == nil {
		s.fail(w, http.StatusBadRequest, "JSON_ERROR", "Request body is not valid JSON")
		return
	}
	clientID, _ := req["clientId"].(string)
	step := s.askedFor(clientID)
	select {
	case <-time.After(step.Latency):
	case <-s.closed:
	}
	if step.Fault != "" {
		s.count("session " + string(step.Fault))
	}
	var made map[string]any
	var status int
	var e *errorBody
	if step.processes() {
		if e = validSession(req); e == nil {
			made, status, e = s.openSession(req, clientID)
		} else {
			status = http.StatusBadRequest
		}
	}
	switch {
	case s.instead(w, r, step):
	case e != nil:
		s.fail(w, status, e.Identifier, e.Message)
	case s.afterwards(w, r, step):
	default:
		s.count("session 201")
		answer(w, http.StatusCreated, made)
	}
}

// askedFor notes a request, and returns how to treat it.
func (s *Sandbox) askedFor(clientID string) Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.opening
	o.asked[clientID]++
	switch script := o.scripts[clientID]; {
	case len(script) > 0:
		o.scripts[clientID] = script[1:]
		return script[0]
	case o.decide != nil:
		return o.decide(clientID, o.asked[clientID])
	case o.always != nil:
		return *o.always
	default:
		return Step{}
	}
}

// openSession opens a session, if the account may, and returns the answer.
func (s *Sandbox) openSession(req map[string]any, clientID string) (made map[string]any, status int, e *errorBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.o.ManySessions {
		for _, t := range s.tokens {
			if t.ClientID == clientID && t.now() == "ACTIVE" {
				return nil, http.StatusConflict, &errorBody{Identifier: "VALIDATION_ERROR", Message: "Client has an active session"}
			}
		}
	}
	if c := s.opening.credits; c != nil {
		if *c <= 0 {
			return nil, http.StatusBadRequest, &errorBody{Identifier: "PERMISSIONS_ERROR", Message: "Partner reached token limit."}
		}
		*c--
	}
	token, ref := rand.Text(), NewScanRef()
	life := defaultExpiry
	if n, ok := req["expiryTime"].(float64); ok {
		life = time.Duration(n) * time.Second
	}
	t := s.seen(token)
	t.ScanRef, t.status, t.ClientID, t.expires = ref, "ACTIVE", clientID, time.Now().Add(life)
	t.Reference, _ = req["externalRef"].(string)
	s.refs[ref] = token
	s.opening.clients.Store(token, clientID)
	s.report.Opened++
	made = map[string]any{"tokenType": "IDENTIFICATION", "externalRef": nil} // what isn't set is echoed as well
	maps.Copy(made, req)
	for _, name := range []string{"firstName", "lastName"} {
		if v, ok := req[name].(string); ok {
			made[name] = strings.ToUpper(v)
		}
	}
	made["message"], made["authToken"], made["scanRef"], made["digitString"] = "Token created successfully", token, ref, nil
	made["expiryTime"] = int64(life / time.Second)
	return made, 0, nil
}

// validSession checks a request as the documentation demands.
func validSession(req map[string]any) *errorBody {
	bad := func(key string) *errorBody {
		return &errorBody{Identifier: "VALIDATION_ERROR", Message: fmt.Sprintf("Bad value for '%s'", key)}
	}
	for _, key := range slices.Sorted(maps.Keys(sessionRules)) {
		value, given := req[key]
		if key == "clientId" && (!given || value == nil || value == "") {
			return &errorBody{Identifier: "MISSING_VALUE", Message: "Missing value for 'clientId'"}
		}
		if given && value != nil && !sessionRules[key](value) {
			return bad(key)
		}
	}
	return nil
}

// sessionRules say which values a key may have.
var sessionRules = map[string]func(v any) bool{
	"clientId": text(100, func(s string) bool {
		return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
	}),
	"tokenType":      text(40, func(s string) bool { return s == "IDENTIFICATION" || s == "DOCUMENT" }),
	"externalRef":    text(maxReference, nil),
	"firstName":      text(100, isName),
	"lastName":       text(100, isName),
	"dateOfBirth":    text(10, func(s string) bool { _, err := time.Parse(time.DateOnly, s); return err == nil }),
	"nationality":    text(2, func(s string) bool { return len(s) == 2 }),
	"personalNumber": text(50, nil),
	"documentNumber": text(50, nil),
	"sex":            text(1, func(s string) bool { return s == "M" || s == "F" }),
	"address":        text(255, nil),
	"expiryTime": func(v any) bool {
		n, ok := v.(float64)
		return ok && n >= 0 && n <= maxExpiry && n == float64(int64(n))
	},
}

func text(most int, also func(string) bool) func(any) bool {
	return func(v any) bool {
		s, ok := v.(string)
		return ok && s != "" && utf8.RuneCountInString(s) <= most && (also == nil || also(s))
	}
}

func isName(s string) bool {
	return !strings.ContainsAny(s, "~!@#$%^*()_+={}[]|:;\",<>/?") && !strings.ContainsFunc(s, unicode.IsDigit)
}
