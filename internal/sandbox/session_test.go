package sandbox_test

import (
	"encoding/json"
	"strings"
	"testing"

	"idenfy-batch/internal/sandbox"
)

// The token call, by iDenfy's rules.
func TestSessionRules(t *testing.T) {
	a := start(t, sandbox.Options{Key: "key", Secret: "secret"})
	for _, c := range []struct {
		name   string
		body   any
		status int
		want   string
	}{
		{"no JSON", "{", 400, "JSON_ERROR"},
		{"a list", "[]", 400, "JSON_ERROR"},
		{"nobody", object{}, 400, "MISSING_VALUE"},
		{"too long", object{"clientId": strings.Repeat("x", 101)}, 400, "'clientId'"},
		{"not ASCII", object{"clientId": "ž"}, 400, "'clientId'"},
		{"another type", object{"clientId": "a", "tokenType": "OTHER"}, 400, "'tokenType'"},
		{"a digit", object{"clientId": "a", "firstName": "J0nas"}, 400, "'firstName'"},
		{"no date", object{"clientId": "a", "dateOfBirth": "1990-13-01"}, 400, "'dateOfBirth'"},
		{"too long a reference", object{"clientId": "a", "externalRef": strings.Repeat("x", 41)}, 400, "'externalRef'"},
		{"for ever", object{"clientId": "a", "expiryTime": 2_592_001}, 400, "'expiryTime'"},
		{"a text for a number", object{"clientId": "a", "expiryTime": "60"}, 400, "'expiryTime'"},
		{"well", object{"clientId": "a", "tokenType": "IDENTIFICATION", "firstName": "Jonas", "expiryTime": 600, "externalRef": "x"}, 201, `"firstName":"JONAS"`},
		{"again", object{"clientId": "a"}, 409, "active session"},
	} {
		if status, answer := a.call("/api/v2/token", c.body); status != c.status || !strings.Contains(answer, c.want) {
			t.Errorf("%s: %d %s", c.name, status, answer)
		}
	}
	a.Expire("a")
	if status, _ := a.call("/api/v2/token", object{"clientId": "a", "expiryTime": 0}); status != 201 {
		t.Errorf("after its end: %d", status)
	}
	// That one has ended already, so that its token is refused.
	for token, s := range a.Sessions("a") {
		if status, answer := a.call("/api/v2/process", body(object{"authToken": token})); status != 400 || !strings.Contains(answer, "TOKEN_NOT_VALID") {
			t.Errorf("an expired token: %d %s", status, answer)
		}
		if _, answer := a.call("/api/v2/status", object{"scanRef": s.ScanRef}); !strings.Contains(answer, `"EXPIRED"`) {
			t.Error(answer)
		}
	}
	a.SetCredits(1)
	for _, want := range []int{201, 400} {
		if status, answer := a.call("/api/v2/token", object{"clientId": "b" + string(rune('0'+want%7))}); status != want || want == 400 && !strings.Contains(answer, "Partner reached token limit.") {
			t.Errorf("%d %s", status, answer)
		}
	}
	// Scripted, over HTTP.
	a.SetCredits(10)
	if status, _ := a.call("/sandbox/script", `{"session": true, "client_id": "c", "steps": [{"fault": "lose_answer"}, {"status": 503}]}`); status != 204 {
		t.Errorf("%d", status)
	}
	for _, want := range []int{0, 503, 409} {
		if status, answer := a.call("/api/v2/token", object{"clientId": "c"}); status != want {
			t.Errorf("%d %s, want %d", status, answer, want)
		}
	}
	data, err := json.Marshal(a.Report())
	if err != nil || !strings.Contains(string(data), `"opened":4`) {
		t.Errorf("%s, %v", data, err)
	}
}
