package sandbox_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
)

const token = "3FA5TFPA2ZE3LMPGGS1EGOJNJE"

var front, face = sample.Front(), sample.Face()

// api is a sandbox on loopback, spoken to by hand.
type api struct {
	*sandbox.Sandbox
	t   *testing.T
	url string
}

func start(t *testing.T, o sandbox.Options) *api {
	t.Helper()
	s := sandbox.New(o)
	url, stop, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return &api{s, t, url}
}

// call posts body, and returns the status and the answer.
func (a *api) call(path string, body any) (int, string) {
	a.t.Helper()
	var data []byte
	if text, ok := body.(string); ok {
		data = []byte(text)
	} else {
		var err error
		if data, err = json.Marshal(body); err != nil {
			a.t.Fatal(err)
		}
	}
	req, err := http.NewRequest(http.MethodPost, a.url+path, bytes.NewReader(data))
	if err != nil {
		a.t.Fatal(err)
	}
	req.SetBasicAuth("key", "secret")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err.Error()
	}
	return resp.StatusCode, string(text)
}

type object = map[string]any

// body is an acceptable one, with changes; a nil value takes the key out.
func body(changes object) object {
	b := object{
		"authToken": token, "country": "LT", "documentType": "PASSPORT",
		"images": object{"FRONT": base64.StdEncoding.EncodeToString(front), "FACE": base64.StdEncoding.EncodeToString(face)},
	}
	for k, v := range changes {
		if b[k] = v; v == nil {
			delete(b, k)
		}
	}
	return b
}

// What the documentation demands is enforced, with the documented shape of
// errors.
func TestRules(t *testing.T) {
	a := start(t, sandbox.Options{Key: "key", Secret: "secret", ImageLimit: true})
	image := base64.StdEncoding.EncodeToString(front)
	for _, c := range []struct {
		name   string
		body   any
		status int
		want   []string
	}{
		{"no JSON", "{", 400, []string{`"identifier":"JSON_ERROR"`}},
		{"no token", body(object{"authToken": nil}), 400, []string{"MISSING_VALUE", "authToken"}},
		{"short token", body(object{"authToken": "abc"}), 400, []string{"VALIDATION_ERROR", "10 to 40"}},
		{"long token", body(object{"authToken": strings.Repeat("a", 41)}), 400, []string{"VALIDATION_ERROR"}},
		{"no country", body(object{"country": nil}), 400, []string{"MISSING_VALUE", "country"}},
		{"bad country", body(object{"country": "LTU"}), 400, []string{"BAD_VALUE", "country"}},
		{"no type", body(object{"documentType": nil}), 400, []string{"MISSING_VALUE", "documentType"}},
		{"bad type", body(object{"documentType": "CARD"}), 400, []string{"BAD_VALUE", "documentType"}},
		{"no BACK", body(object{"documentType": "ID_CARD"}), 400, []string{`{"message":"No image provided for step 'BACK'","identifier":"MISSING_VALUE","documentation":"","severity":"NOT_SEVERE"}`}},
		{"no FACE", body(object{"images": object{"FRONT": image}}), 400, []string{"MISSING_VALUE", "No image provided for step 'FACE'"}},
		{"not Base64", body(object{"images": object{"FRONT": image, "FACE": "/9j/4AAQ!!!!!!!!"}}), 400, []string{"ENCODING_ERROR", "FACE"}},
		{"no image", body(object{"images": object{"FRONT": image, "FACE": base64.StdEncoding.EncodeToString([]byte("hello, world"))}}), 400, []string{"BAD_VALUE", "unsupported format"}},
		{"unknown step", body(object{"images": object{"FRONT": image, "FACE": image, "SIDE": image}}), 400, []string{"BAD_VALUE", "SIDE"}},
		{"6 MB", body(object{"images": object{"FRONT": image, "FACE": base64.StdEncoding.EncodeToString(sample.Pad(face, 6_000_001, 1))}}), 400, []string{"VALIDATION_ERROR", "6 MB"}},
		{"20 MB", body(object{"x": strings.Repeat("x", 20_000_000)}), 413, []string{"20 MB"}},
		{"good", body(object{"country": "lt", "skipAnalysis": true}), 200, nil},
		{"the token again", body(nil), 400, []string{"TOKEN_NOT_VALID"}},
	} {
		status, answer := a.call("/api/v2/process", c.body)
		if status != c.status || c.want == nil && answer != "" {
			t.Errorf("%s: %d %s", c.name, status, answer)
		}
		for _, w := range c.want {
			if !strings.Contains(answer, w) {
				t.Errorf("%s: %q is not in %s", c.name, w, answer)
			}
		}
	}
	for name, change := range map[string]func(*http.Request){
		"401": func(r *http.Request) { r.SetBasicAuth("key", "wrong") },
		"405": func(r *http.Request) { r.Method = http.MethodGet },
		"404": func(r *http.Request) { r.URL.Path = "/api/v1/process" },
		"400": func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
	} {
		req, err := http.NewRequest(http.MethodPost, a.url+"/api/v2/process", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("key", "secret")
		req.Header.Set("Content-Type", "application/json")
		change(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Status[:3]; got != name {
			t.Errorf("got %s, want %s", got, name)
		}
	}
	if r := a.Report(); r.Processed != 1 {
		t.Errorf("%+v", r)
	}
}

// The count tells a client that sends twice from one that may.
func TestViolations(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*api)
		want string // in the one violation; empty: none
	}{
		{"once", func(a *api) { a.call("/api/v2/process", body(nil)) }, ""},
		{"twice", func(a *api) {
			a.call("/api/v2/process", body(nil))
			a.call("/api/v2/process", body(nil))
		}, "sent again after it was processed and answered"},
		{"again after a loss", func(a *api) {
			a.Script(token, sandbox.Step{Fault: sandbox.LoseAnswer})
			a.call("/api/v2/process", body(nil))
			a.call("/api/v2/process", body(nil))
		}, ""},
		{"again after a rejection", func(a *api) {
			a.call("/api/v2/process", body(object{"images": object{}}))
			a.call("/api/v2/process", body(nil))
		}, ""},
		{"forgiven once", func(a *api) {
			a.call("/api/v2/process", body(nil))
			a.Forgive(token)
			a.call("/api/v2/process", body(nil))
		}, ""},
		{"not twice", func(a *api) {
			a.call("/api/v2/process", body(nil))
			a.Forgive(token)
			a.call("/api/v2/process", body(nil))
			a.call("/api/v2/process", body(nil))
		}, "sent again"},
		{"at once", func(a *api) {
			a.Always(&sandbox.Step{Latency: time.Second})
			done := make(chan bool)
			go func() { a.call("/api/v2/process", body(nil)); done <- true }()
			for a.Token(token).Requests == 0 {
				time.Sleep(time.Millisecond)
			}
			a.call("/api/v2/process", body(nil))
			<-done
		}, "two requests at once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := start(t, sandbox.Options{})
			c.do(a)
			r := a.Report()
			if c.want == "" && len(r.Violations) > 0 || c.want != "" && (len(r.Violations) != 1 || !strings.Contains(r.Violations[0], c.want)) {
				t.Errorf("violations %v, want %q", r.Violations, c.want)
			}
			if r.Processed != 1 || a.Token(token).Processed != 1 {
				t.Errorf("%d processed", r.Processed)
			}
		})
	}
}

func TestTokenStatusAndStrict(t *testing.T) {
	a := start(t, sandbox.Options{Strict: true})
	if status, answer := a.call("/api/v2/process", body(nil)); status != 400 || !strings.Contains(answer, "TOKEN_NOT_VALID") {
		t.Errorf("an unknown token: %d %s", status, answer)
	}
	_, answer := a.call("/api/v2/token", object{"clientId": "7"})
	var issued struct{ AuthToken, ScanRef string }
	if err := json.Unmarshal([]byte(answer), &issued); err != nil || issued.ScanRef == "" {
		t.Fatalf("%s: %v", answer, err)
	}
	for _, want := range []string{"ACTIVE", "REVIEWING"} {
		if _, answer := a.call("/api/v2/status", object{"scanRef": issued.ScanRef}); !strings.Contains(answer, `"status":"`+want+`"`) {
			t.Errorf("%s, want %s", answer, want)
		}
		a.call("/api/v2/process", body(object{"authToken": issued.AuthToken}))
	}
	if status, _ := a.call("/api/v2/status", object{"scanRef": "x"}); status != 404 {
		t.Errorf("an unknown session: %d", status)
	}
	if status, _ := a.call("/api/v2/token", object{}); status != 400 {
		t.Errorf("a token for nobody: %d", status)
	}
}

// The control calls of the sandbox command.
func TestScriptOverHTTP(t *testing.T) {
	a := start(t, sandbox.Options{})
	if status, _ := a.call("/sandbox/script", `{"token": "`+token+`", "steps": [{"status": 429, "identifier": "TOO_MANY_REQUESTS", "retry_after": "3"}]}`); status != 204 {
		t.Fatalf("script: %d", status)
	}
	if status, answer := a.call("/api/v2/process", body(nil)); status != 429 || !strings.Contains(answer, "TOO_MANY_REQUESTS") {
		t.Errorf("%d %s", status, answer)
	}
	if status, _ := a.call("/sandbox/script", `{"stepz": []}`); status != 400 {
		t.Errorf("a typing error: %d", status)
	}
	a.call("/sandbox/script", `{"steps": [{"fault": "lose_answer"}]}`)
	if status, _ := a.call("/api/v2/process", body(nil)); status != 0 {
		t.Errorf("a lost answer: %d", status)
	}
	resp, err := http.Get(a.url + "/sandbox/report")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var r sandbox.Report
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || r.Requests != 2 || r.Processed != 1 || r.ByAnswer["lose_answer"] != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A person is counted by FACE, whatever the token is.
func TestPersons(t *testing.T) {
	a := start(t, sandbox.Options{})
	for n, changes := range []object{
		{}, {}, // the same token again is nobody's submission
		{"authToken": "ANOTHER-0123456789"},
		{"authToken": "THIRD-0123456789", "images": object{
			"FRONT": base64.StdEncoding.EncodeToString(front),
			"FACE":  base64.StdEncoding.EncodeToString(sample.Pad(face, len(face)+10, 1)),
		}},
	} {
		if status, _ := a.call("/api/v2/process", body(changes)); (status == http.StatusOK) != (n != 1) {
			t.Errorf("request %d: %d", n, status)
		}
	}
	sum := sha256.Sum256(face)
	if p := a.Persons(); len(p) != 2 || p[hex.EncodeToString(sum[:])] != 2 {
		t.Errorf("%v", p)
	}
}

// An answer that drips goes on until the client leaves, and nothing was
// processed.
func TestDrip(t *testing.T) {
	a := start(t, sandbox.Options{})
	a.Script(token, sandbox.Step{Fault: sandbox.Drip})
	data, err := json.Marshal(body(nil))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, a.url+"/api/v2/process", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("key", "secret")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 3)); err != nil {
		t.Error(err)
	}
	if r := a.Report(); r.Processed != 0 {
		t.Errorf("%+v", r)
	}
}
